"""ShareGPT: a list of turns with `from` and `value`, and optionally tools.

Row:     {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]}
Result:  user "Hi", assistant "Hello!"

`function_call` turns become assistant messages and `observation` turns tool messages. A `tools` column is added to
the system message as text, so that no template loses it.
"""

import json
from typing import Any

from ...registry import map_fn
from ..conversation import Message, RowError

_ROLES = {
    'human': 'user',
    'user': 'user',
    'gpt': 'assistant',
    'assistant': 'assistant',
    'bot': 'assistant',
    'chatgpt': 'assistant',
    'bing': 'assistant',
    'bard': 'assistant',
    'function_call': 'assistant',
    'observation': 'tool',
    'tool': 'tool',
    'system': 'system',
}


@map_fn('sharegpt')
def sharegpt_map_fn(row: dict) -> list[Message]:
    """Map one ShareGPT row to a conversation."""
    turns = row.get('conversations', row.get('conversation'))
    if turns is None:
        raise RowError('no column `conversations`', f'the columns are {", ".join(map(str, row))}')
    if not isinstance(turns, list):
        raise RowError('column `conversations` is not a list of turns', f'it holds a {type(turns).__name__}')
    messages = [_message(turn, index) for index, turn in enumerate(turns)]
    system = [text for text in (row.get('system'), _tools_text(row.get('tools'))) if text]
    if messages and messages[0]['role'] == 'system':
        system.insert(0, messages.pop(0)['content'])
    head = [{'role': 'system', 'content': '\n\n'.join(system)}] if system else []
    while messages and messages[0]['role'] == 'assistant':  # a greeting before the first question
        messages.pop(0)
    return head + messages


def _message(turn: Any, index: int) -> Message:
    if not isinstance(turn, dict) or 'from' not in turn or 'value' not in turn:
        raise RowError('turn without from or value', f'turn {index + 1} is {str(turn)[:60]!r}')
    role = _ROLES.get(str(turn['from']).lower())
    if role is None:
        raise RowError('unknown role', f'turn {index + 1} is from {turn["from"]!r}; known: {", ".join(_ROLES)}')
    return {'role': role, 'content': turn['value']}


def _tools_text(tools: Any) -> str:
    if not tools or tools == '[]':
        return ''
    text = tools if isinstance(tools, str) else json.dumps(tools, ensure_ascii=False)
    return f'You can call these tools:\n{text}'
