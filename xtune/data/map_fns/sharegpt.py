"""ShareGPT: a list of turns with `from` and `value`, optionally with tools."""

from typing import Any

from ...messages import Conversation, Message, RowError, column
from ...registry import map_fn
from .columns import is_empty, list_column
from .openai import REASONING_FIELDS
from .parts import content_text
from .tools import declared_tools, tool_calls
from .turns import CALL, normalize_role, to_conversation, train_flag


@map_fn('sharegpt')
def sharegpt_map_fn(row: dict) -> Conversation:
    r"""ShareGPT turns, with tools and function calls.

    Row:
        {"conversations": [{"from": "human", "value": "2 + 3?"},
                           {"from": "function_call", "value": "{\"name\": \"add\", \"arguments\": {\"a\": 2}}"},
                           {"from": "observation", "value": "5"},
                           {"from": "gpt", "value": "It is 5."}],
         "tools": "[{\"name\": \"add\", \"description\": \"Add numbers\", \"parameters\": {\"type\": \"object\"}}]"}
    Result:
        user: "2 + 3?"
        assistant: "" {"tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}]}
        tool: "5"
        assistant: "It is 5."
        tools: [{"type": "function", "function": {
                    "name": "add", "description": "Add numbers", "parameters": {"type": "object"}}}]

    The column may also be called `conversation`. A `function_call` turn contains one call or a list of calls. The
    column `system` is appended to the system turn. Assistant turns before the first user turn are left out. A turn may
    have a training flag and reasoning, as in the format `openai`.
    """
    return _conversation(row, join_questions=False)


def _conversation(row: dict, join_questions: bool) -> Conversation:
    turns = list_column(row, 'conversations', 'conversation')
    messages = [_message(turn, f'turn {number}') for number, turn in enumerate(turns, 1)]
    if system := column(row, 'system').strip() if 'system' in row else '':
        if messages and messages[0]['role'] == 'system':
            system = f'{messages.pop(0)["content"]}\n\n{system}'
        messages.insert(0, {'role': 'system', 'content': system})
    return to_conversation(messages, declared_tools(row), join_questions)


@map_fn('wizardlm')
def wizardlm_map_fn(row: dict) -> Conversation:
    r"""ShareGPT turns with consecutive turns of the same speaker, as in WizardLM_evol_instruct_V2.

    Row:
        {"idx": "0", "conversations": [{"from": "gpt", "value": "Welcome!"},
                                       {"from": "human", "value": "Name a color."},
                                       {"from": "human", "value": "A warm one."},
                                       {"from": "gpt", "value": "Red."}]}
    Result:
        user: "Name a color.\nA warm one."
        assistant: "Red."

    Consecutive `human` turns are joined by a line break. Assistant turns before the first user turn are left out.
    """
    return _conversation(row, join_questions=True)


def _message(turn: Any, place: str) -> Message:
    if not isinstance(turn, dict) or 'from' not in turn or 'value' not in turn:
        raise RowError('turn without from or value', f'{place} is {str(turn)[:60]!r}')
    role, place = normalize_role(turn['from'], place), f'{place} ({turn["from"]})'
    value = turn['value']
    if role == CALL:
        return {'role': 'assistant', 'content': '', 'tool_calls': tool_calls(value, place)} | train_flag(turn, place)
    message = {'role': role, 'content': content_text(value, place)}
    names = REASONING_FIELDS if role == 'assistant' else ()
    if name := next((name for name in names if name in turn and not is_empty(turn[name])), None):
        message['reasoning_content'] = content_text(turn[name], f'{place}, {name}')
    return message | train_flag(turn, place, message['content'])
