"""Queries answered by function calls."""

from ...messages import Conversation, RowError, column
from ...registry import map_fn
from ...templates.system_prompts import system_text
from .columns import is_empty
from .tools import declared_tools, tool_calls


@map_fn('xlam')
def xlam_map_fn(row: dict, system: str | None = None) -> Conversation:
    r"""Queries with the function calls that answer them, as in xlam-function-calling-60k.

    Row:
        {"query": "How deep is well A?", "answers": "[{\"name\": \"depth\", \"arguments\": {\"well\": \"A\"}}]",
         "tools": "[{\"name\": \"depth\", \"description\": \"Depth\", \"parameters\": {\"type\": \"object\"}}]"}
    Result:
        user: "How deep is well A?"
        assistant: "" {"tool_calls": [{"type": "function", "function": {"name": "depth", "arguments": {"well": "A"}}}]}
        tools: [{"type": "function", "function": {
                    "name": "depth", "description": "Depth", "parameters": {"type": "object"}}}]

    `answers` and `tools` are lists, or JSON text of lists. `system` is the name of a built-in system prompt or a text.
    """
    calls = [] if is_empty(row.get('answers')) else tool_calls(row['answers'], 'column `answers`')
    if not calls:
        raise RowError('empty reply', 'column `answers` contains no call')
    messages = [{'role': 'system', 'content': system_text(system)}] if system else []
    messages.append({'role': 'user', 'content': column(row, 'query')})
    messages.append({'role': 'assistant', 'content': '', 'tool_calls': calls})
    return Conversation(messages, declared_tools(row))
