"""What a map function returns, and the checks each conversation passes before it is tokenised.

A conversation is a list of messages, each `{'role': ..., 'content': ...}`, and the tools the model may call. Roles are
`system` (first only), `user`, `assistant`, `tool`; pretraining text is one message of role `text`. A reply may say
`train: False` to be context without a loss, and may hold `tool_calls` as chat completion APIs write them. A map
function that needs no tools returns the list alone; one for rows that are token ids already returns `Tokens`.
"""

from dataclasses import dataclass
from typing import Any

from .utils.visible import shortened

Message = dict[str, Any]
ROLES = ('system', 'user', 'assistant', 'tool', 'text')
REPLIES = ('assistant', 'text')
AFTER_REPLY = 'turns after the last reply'


@dataclass(frozen=True)
class Conversation:
    """Messages in order, and JSON schemas `{'type': 'function', 'function': {'name', ...}}` of the tools on offer.

    `notes` says what of the row the map function left out on purpose: pairs of a name by which such rows are counted
    ('turns after the last reply') and what stands there.
    """

    messages: list[Message]
    tools: list[dict] | None = None
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Tokens:
    """A row that is tokenised already: token ids [S], and for each whether it gets a loss."""

    ids: list[int]
    trained: list[bool]


class RowError(ValueError):
    """One row cannot be used. `reason` is the class of fault by which rows are counted, `detail` this row's case."""

    def __init__(self, reason: str, detail: str = '') -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f'{self.reason}: {self.detail}' if self.detail else self.reason


def column(row: dict, name: str) -> str:
    """Return the text in column `name`; empty cells (also NaN, as tables write them) give '', numbers their text.

    Raises:
        RowError: There is no such column, or it holds a list or an object.
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
    """Return a conversation of one question and one reply."""
    head = [{'role': 'system', 'content': system}] if system else []
    return [*head, {'role': 'user', 'content': question}, {'role': 'assistant', 'content': reply}]


def checked(mapped: Any) -> Conversation | Tokens:
    """Return what a map function returned, up to the last reply, if a model can be trained on it.

    Raises:
        RowError: Not a list of messages, an unknown role, no reply, an empty reply, roles that do not alternate, or
            nothing left to train on.
    """
    if isinstance(mapped, Tokens):
        return _checked_tokens(mapped)
    given = mapped if isinstance(mapped, Conversation) else Conversation(mapped)
    messages = given.messages
    if not isinstance(messages, list) or not messages:
        raise RowError('no messages')
    for index, message in enumerate(messages):
        _check_message(message, index)
    last = max((i for i, m in enumerate(messages) if m['role'] in REPLIES), default=None)
    if last is None:
        raise RowError('reply missing', 'the conversation has no assistant message')
    notes = given.notes
    if left := messages[last + 1 :]:
        notes = (*notes, (AFTER_REPLY, f'{left[0]["role"]}: {shortened(left[0]["content"])}'))
    messages = messages[: last + 1]
    _check_order([m['role'] for m in messages])
    if not any(is_trained(m) for m in messages):
        raise RowError('nothing to train on', 'every assistant message says train: false')
    return Conversation(messages, given.tools or None, notes)


def is_trained(message: Message) -> bool:
    """Tell whether the loss covers this message."""
    return message['role'] in REPLIES and message.get('train', True)


def _checked_tokens(tokens: Tokens) -> Tokens:
    if len(tokens.ids) != len(tokens.trained):
        raise RowError('ids and labels differ in length', f'{len(tokens.ids)} ids, {len(tokens.trained)} labels')
    if not all(isinstance(i, int) and i >= 0 for i in tokens.ids):
        raise RowError('token ids are not whole numbers from 0 on')
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
                'content is not text', f'message {index + 1} holds half a character: {error.reason}'
            ) from error
    if role in REPLIES and not message.get('tool_calls') and not content.strip():
        raise RowError('empty reply' if role == 'assistant' else 'empty text')
    if role not in REPLIES and message.get('train'):
        raise RowError('only replies can be trained', f'message {index + 1} ({role}) says train: true')


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
