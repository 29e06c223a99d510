"""What map functions of whole dialogues share: flags of a message, and the order of messages."""

from typing import Any

from ..conversation import Message, RowError
from .columns import is_empty

_FLAGS = ('train', 'loss', 'weight')
_TRUE, _FALSE = ('true', '1', '1.0'), ('false', '0', '0.0')


def trained(entry: dict, place: str) -> dict[str, bool]:
    """Return `{'train': ...}` if a message says so as `train`, `loss` or `weight`: a bool, a number or a word.

    Raises:
        RowError: The flag is something else; `place` says where.
    """
    flags = [_flag(entry[name], f'{place} has {name}={entry[name]!r:.40}') for name in _FLAGS if name in entry]
    given = [flag for flag in flags if flag is not None]
    return {'train': all(given)} if given else {}


def in_order(messages: list[Message]) -> list[Message]:
    """Return `messages` without the replies before the first question.

    Raises:
        RowError: There is a system message after the first message.
    """
    for index, message in enumerate(messages[1:], 2):
        if message['role'] == 'system':
            raise RowError('system message after the start', f'message {index}; only the first one may be it')
    first = 1 if messages and messages[0]['role'] == 'system' else 0
    question = next((i for i, message in enumerate(messages) if message['role'] == 'user'), first)
    greeted = all(message['role'] == 'assistant' for message in messages[first:question])
    return messages[:first] + messages[question:] if greeted else messages


def joined_questions(messages: list[Message]) -> list[Message]:
    """Return `messages` with each run of user messages joined into one, a line break between them."""
    result: list[Message] = []
    for message in messages:
        if result and result[-1]['role'] == message['role'] == 'user':
            before = result.pop()
            message = {**before, 'content': f'{before["content"]}\n{message["content"]}'}
        result.append(message)
    return result


def _flag(value: Any, where: str) -> bool | None:
    if is_empty(value):
        return None
    if isinstance(value, (bool, int, float)):
        return bool(value)
    word = value.strip().lower() if isinstance(value, str) else ''
    if word not in (*_TRUE, *_FALSE):
        raise RowError('a flag of training is neither true nor false', where)
    return word in _TRUE
