"""Conversations: the result of a map function, and its validation.

A conversation is a list of messages, each `{'role': ..., 'content': ...}`, and the tools the model may call. Roles are
`system` (first only), `user`, `assistant` and `tool`; pretraining text is one message with role `text`. An assistant
message with `train: False` is context without a loss; it may have `tool_calls` in the format of chat completion APIs.
A map function returns the list alone if there are no tools, and `Tokens` if its rows are already token ids.
"""

from dataclasses import dataclass
from typing import Any

from .utils.visible import shortened

Message = dict[str, Any]
ROLES = ('system', 'user', 'assistant', 'tool', 'text')
TRAINABLE_ROLES = ('assistant', 'text')
AFTER_REPLY = 'turns after the last reply'  # a part of the data that is not used


@dataclass(frozen=True)
class Conversation:
    """Messages, and the tools the model may call.

    Attributes:
        messages: Messages in order.
        tools: JSON schemas `{'type': 'function', 'function': {'name', ...}}`.
        notes: Parts of the row that the map function drops on purpose, as pairs of a name by which such rows are
            counted ('turns after the last reply') and an example.
    """

    messages: list[Message]
    tools: list[dict] | None = None
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Tokens:
    """A row that is already tokenized: token ids [S], and for each whether it gets a loss."""

    ids: list[int]
    trained: list[bool]


class RowError(ValueError):
    """A row that cannot be used.

    Args:
        reason: The type of problem, without values: rows are counted by it.
        detail: The values in this row.
    """

    def __init__(self, reason: str, detail: str = '') -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f'{self.reason}: {self.detail}' if self.detail else self.reason


def column(row: dict, name: str) -> str:
    """Return column `name` as text: '' for an empty cell (also NaN, as in tables), and `str` of a number.

    Raises:
        RowError: There is no such column, or it has a list, an object or bytes.
    """
    if name not in row:
        raise RowError(f'no column `{name}`', f'the columns are {", ".join(map(str, row))}')
    value = row[name]
    if value is None or value != value:
        return ''
    if isinstance(value, (list, dict, bytes)):
        raise RowError(f'column `{name}` is not text', f'it holds a {type(value).__name__}')
    return str(value)


def exchange(question: str, reply: str, system: str | None = None) -> list[Message]:
    """Return the messages of one question and one reply, with a system message if given."""
    first = [{'role': 'system', 'content': system}] if system else []
    return [*first, {'role': 'user', 'content': question}, {'role': 'assistant', 'content': reply}]


def checked(mapped: Any) -> Conversation | Tokens:
    """Validate the result of a map function, and return it up to the last assistant message.

    Raises:
        RowError: Not a list of messages, an unknown role, no assistant message, an empty one, roles that do not
            alternate, or nothing to train on.
    """
    if isinstance(mapped, Tokens):
        return _checked_tokens(mapped)
    conversation = mapped if isinstance(mapped, Conversation) else Conversation(mapped)
    messages = conversation.messages
    if not isinstance(messages, list) or not messages:
        raise RowError('no messages')
    for index, message in enumerate(messages):
        _check_message(message, index)
    last = max((i for i, m in enumerate(messages) if m['role'] in TRAINABLE_ROLES), default=None)
    if last is None:
        raise RowError('reply missing', 'the conversation has no assistant message')
    notes = conversation.notes
    if unused := messages[last + 1 :]:
        notes = (*notes, (AFTER_REPLY, f'{unused[0]["role"]}: {shortened(unused[0]["content"])}'))
    messages = messages[: last + 1]
    _check_order([m['role'] for m in messages])
    if not any(is_trained(m) for m in messages):
        raise RowError('nothing to train on', 'every assistant message has train: false')
    return Conversation(messages, conversation.tools or None, notes)


def is_trained(message: Message) -> bool:
    """Tell whether this message gets a loss."""
    return message['role'] in TRAINABLE_ROLES and message.get('train', True)


def _checked_tokens(tokens: Tokens) -> Tokens:
    if len(tokens.ids) != len(tokens.trained):
        raise RowError('ids and labels differ in length', f'{len(tokens.ids)} ids, {len(tokens.trained)} labels')
    if not all(isinstance(i, int) and i >= 0 for i in tokens.ids):
        raise RowError('token ids are not non-negative integers')
    if not any(tokens.trained[1:]):
        raise RowError('nothing to train on', 'no token after the first one has a label')
    return tokens


def _check_message(message: Any, index: int) -> None:
    if not isinstance(message, dict) or 'role' not in message or 'content' not in message:
        raise RowError('message without role or content', f'message {index + 1} is {str(message)[:60]!r}')
    role, content = message['role'], message['content']
    if role not in ROLES:
        raise RowError('unknown role', f'message {index + 1} has role {role!r}; known: {", ".join(ROLES)}')
    if not isinstance(content, str):
        raise RowError('content is not text', f'message {index + 1} ({role}) holds a {type(content).__name__}')
    if not content.isascii():
        try:
            content.encode()
        except UnicodeEncodeError as error:
            raise RowError(
                'content is not text', f'message {index + 1} has an unpaired surrogate: {error.reason}'
            ) from error
    if role in TRAINABLE_ROLES and not message.get('tool_calls') and not content.strip():
        raise RowError('empty reply' if role == 'assistant' else 'empty text')
    if role not in TRAINABLE_ROLES and message.get('train'):
        raise RowError('only replies can be trained', f'message {index + 1} ({role}) has train: true')


def _check_order(roles: list[str]) -> None:
    if roles == ['text']:
        return
    allowed = {'user': ('assistant',), 'assistant': ('user', 'tool'), 'tool': ('tool', 'assistant')}
    turns = roles[1:] if roles[0] == 'system' else roles
    if turns[0] != 'user':
        raise RowError('roles do not alternate', f'the first turn is `{turns[0]}`, not `user`')
    for index, (before, after) in enumerate(zip(turns, turns[1:], strict=False)):
        if after not in allowed.get(before, ()):
            raise RowError('roles do not alternate', f'`{before}` is followed by `{after}` at turn {index + 2}')
