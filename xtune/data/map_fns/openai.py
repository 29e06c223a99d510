"""OpenAI messages: role and content, as chat completion APIs take them.

Row:     {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!", "train": true}]}
Result:  user "Hi", assistant "Hello!"

A message may say `train: false` (also `loss: false` or `weight: 0`) to be context without a loss. Content may be a
list of text parts. Tool calls of an assistant become its text, as JSON.
"""

import json
from typing import Any

from ...registry import map_fn
from ..conversation import Message, RowError

_ROLES = {'developer': 'system', 'function': 'tool'}


@map_fn('openai')
def openai_map_fn(row: dict) -> list[Message]:
    """Map one row of OpenAI messages to a conversation."""
    messages = row.get('messages')
    if messages is None:
        raise RowError('no column `messages`', f'the columns are {", ".join(map(str, row))}')
    if not isinstance(messages, list):
        raise RowError('column `messages` is not a list of messages', f'it holds a {type(messages).__name__}')
    return [_message(message, index) for index, message in enumerate(messages)]


def _message(message: Any, index: int) -> Message:
    if not isinstance(message, dict) or 'role' not in message:
        raise RowError('message without role or content', f'message {index + 1} is {str(message)[:60]!r}')
    role = _ROLES.get(message['role'], message['role'])
    content = _text(message.get('content'), index)
    if message.get('tool_calls'):
        calls = [call.get('function', call) for call in message['tool_calls']]
        content = '\n'.join([content] * bool(content) + [json.dumps(call, ensure_ascii=False) for call in calls])
    result = {'role': role, 'content': content}
    for key in ('train', 'loss', 'weight'):
        if message.get(key) is not None:
            result['train'] = str(message[key]).lower() not in ('false', '0', '0.0')
    return result


def _text(content: Any, index: int) -> str:
    if content is None:
        return ''
    if isinstance(content, list):
        texts = [part.get('text') for part in content if isinstance(part, dict) and part.get('type') == 'text']
        if len(texts) < len(content) or not all(isinstance(text, str) for text in texts):
            raise RowError('content is not text', f'message {index + 1} has parts that are not text')
        return ''.join(texts)
    return content
