"""What a map function returns, and the checks each conversation passes before it is tokenised.

A conversation is a list of messages, each `{'role': ..., 'content': ..., 'train': bool}`. Roles are `system` (first
only), `user`, `assistant`, `tool`; pretraining text is one message of role `text`. `train` is optional: False keeps
an assistant message as context without a loss.
"""

from typing import Any

Message = dict[str, Any]
ROLES = ('system', 'user', 'assistant', 'tool', 'text')


class RowError(ValueError):
    """One row cannot be used. `reason` is the class of fault by which rows are counted, `detail` this row's case."""

    def __init__(self, reason: str, detail: str = '') -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f'{self.reason}: {self.detail}' if self.detail else self.reason


def column(row: dict, name: str) -> str:
    """Return the text in column `name`; empty cells give '', numbers their text.

    Raises:
        RowError: There is no such column, or it holds a list or an object.
    """
    if name not in row:
        raise RowError(f'no column `{name}`', f'the columns are {", ".join(map(str, row))}')
    value = row[name]
    if value is None:
        return ''
    if isinstance(value, (list, dict)):
        raise RowError(f'column `{name}` is not text', f'it holds a {type(value).__name__}')
    return str(value)


def exchange(question: str, reply: str, system: str | None = None) -> list[Message]:
    """Return a conversation of one question and one reply."""
    head = [{'role': 'system', 'content': system}] if system else []
    return [*head, {'role': 'user', 'content': question}, {'role': 'assistant', 'content': reply}]


def checked(messages: Any) -> list[Message]:
    """Return `messages` up to the last reply, if a model can be trained on them.

    Raises:
        RowError: Not a list of messages, an unknown role, no reply, an empty reply, roles that do not alternate, or
            no message left to train on.
    """
    if not isinstance(messages, list) or not messages:
        raise RowError('no messages')
    for index, message in enumerate(messages):
        _check_message(message, index)
    last = max((i for i, m in enumerate(messages) if m['role'] in ('assistant', 'text')), default=None)
    if last is None:
        raise RowError('reply missing', 'the conversation has no assistant message')
    messages = messages[: last + 1]
    _check_order([m['role'] for m in messages])
    if not any(is_trained(m) for m in messages):
        raise RowError('nothing to train on', 'every assistant message says train: false')
    return messages


def is_trained(message: Message) -> bool:
    """Tell whether the loss covers this message."""
    return message['role'] in ('assistant', 'text') and message.get('train', True)


def _check_message(message: Any, index: int) -> None:
    if not isinstance(message, dict) or 'role' not in message or 'content' not in message:
        raise RowError('message without role or content', f'message {index + 1} is {str(message)[:60]!r}')
    if message['role'] not in ROLES:
        raise RowError('unknown role', f'message {index + 1} has role {message["role"]!r}; known: {", ".join(ROLES)}')
    if not isinstance(message['content'], str):
        kind = type(message['content']).__name__
        raise RowError('content is not text', f'message {index + 1} ({message["role"]}) holds a {kind}')
    try:
        message['content'].encode()
    except UnicodeEncodeError as error:
        raise RowError('content is not text', f'message {index + 1} holds half a character: {error.reason}') from error
    if message['role'] in ('assistant', 'text') and not message['content'].strip():
        raise RowError('empty reply' if message['role'] == 'assistant' else 'empty text')


def _check_order(roles: list[str]) -> None:
    if roles == ['text']:
        return
    follows = {'user': ('assistant',), 'assistant': ('user', 'tool'), 'tool': ('tool', 'assistant')}
    turns = roles[1:] if roles[0] == 'system' else roles
    if turns[0] != 'user':
        raise RowError('roles do not alternate', f'the first turn is `{turns[0]}`, not `user`')
    for index, (before, after) in enumerate(zip(turns, turns[1:], strict=False)):
        if after not in follows.get(before, ()):
            raise RowError('roles do not alternate', f'`{before}` is followed by `{after}` at turn {index + 2}')
