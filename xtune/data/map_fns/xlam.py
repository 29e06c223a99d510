"""Queries answered by function calls."""

from ...messages import Conversation, RowError, column
from ...registry import map_fn
from ...templates.system_prompts import system_text
from .columns import is_empty
from .tools import calls, offered


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

    `answers` and `tools` are lists, or JSON text of lists. `system` is a name or a text.
    """
    called = [] if is_empty(row.get('answers')) else calls(row['answers'], 'column `answers`')
    if not called:
        raise RowError('empty reply', 'column `answers` holds no call')
    head = [{'role': 'system', 'content': system_text(system)}] if system else []
    question = {'role': 'user', 'content': column(row, 'query')}
    return Conversation([*head, question, {'role': 'assistant', 'content': '', 'tool_calls': called}], offered(row))
