"""ShareGPT: a list of turns with `from` and `value`, and optionally tools."""

from typing import Any

from ...messages import Conversation, Message, RowError, column
from ...registry import map_fn
from .columns import is_empty, listed
from .openai import THOUGHTS
from .parts import text_of
from .tools import calls, offered
from .turns import CALL, conversation_of, role_of, trained


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

    The column may also be called `conversation`. A `function_call` turn holds one call or a list of calls. A
    column `system` follows the text of a system turn. Replies before the first question are left out. A turn may say
    whether it is trained, and hold a thought, as in the format `openai`.
    """
    return _conversation(row, join_questions=False)


def _conversation(row: dict, join_questions: bool) -> Conversation:
    turns = listed(row, 'conversations', 'conversation')
    messages = [_message(turn, f'turn {number}') for number, turn in enumerate(turns, 1)]
    if own := column(row, 'system').strip() if 'system' in row else '':
        if messages and messages[0]['role'] == 'system':
            own = f'{messages.pop(0)["content"]}\n\n{own}'
        messages.insert(0, {'role': 'system', 'content': own})
    return conversation_of(messages, offered(row), join_questions)


@map_fn('wizardlm')
def wizardlm_map_fn(row: dict) -> Conversation:
    r"""ShareGPT turns in which one side may speak twice, as in WizardLM_evol_instruct_V2.

    Row:
        {"idx": "0", "conversations": [{"from": "gpt", "value": "Welcome!"},
                                       {"from": "human", "value": "Name a colour."},
                                       {"from": "human", "value": "A warm one."},
                                       {"from": "gpt", "value": "Red."}]}
    Result:
        user: "Name a colour.\nA warm one."
        assistant: "Red."

    `human` turns in a row are joined by a line break. Replies before the first question are left out.
    """
    return _conversation(row, join_questions=True)


def _message(turn: Any, place: str) -> Message:
    if not isinstance(turn, dict) or 'from' not in turn or 'value' not in turn:
        raise RowError('turn without from or value', f'{place} is {str(turn)[:60]!r}')
    role, place = role_of(turn['from'], place), f'{place} ({turn["from"]})'
    value = turn['value']
    if role == CALL:
        return {'role': 'assistant', 'content': '', 'tool_calls': calls(value, place)} | trained(turn, place)
    message = {'role': role, 'content': text_of(value, place)}
    name = next((name for name in THOUGHTS if role == 'assistant' and name in turn and not is_empty(turn[name])), None)
    if name:
        message['reasoning_content'] = text_of(turn[name], f'{place}, {name}')
    return message | trained(turn, place, message['content'])
