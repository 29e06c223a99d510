"""What map functions of one question and one reply share."""

from typing import Any

from ...messages import Message, RowError, column, exchange
from ...templates.system_prompts import system_text
from ..observed import parsed


def question_and_reply(
    row: dict, questions: tuple[str, ...], reply: str, system: str | None = None, own: str = ''
) -> list[Message]:
    """Return a conversation whose question is the columns `questions`, one a line; an empty one adds no line.

    Args:
        row: One row of a data set.
        questions: Names of columns.
        reply: Name of a column.
        system: Name of a system text of xtune, or a text; None for none.
        own: The row's own system text, which comes before `system`.

    Raises:
        RowError: A column is missing or holds no text.
    """
    parts = [column(row, name) for name in questions]
    question = '\n'.join(part for part in parts if part)
    return exchange(question, column(row, reply), own or (system and system_text(system)))


def listed(row: dict, *names: str) -> list:
    """Return the list in the first of the columns `names` that the row has, also where it is written as JSON text.

    Raises:
        RowError: There is none, or it holds no list.
    """
    name = next((name for name in names if row.get(name) is not None), None)
    if name is None:
        raise RowError(f'no column `{names[0]}`', f'the columns with a value are {_filled(row)}')
    value = structured(row, name)
    if isinstance(value, str):
        raise RowError(f'column `{name}` is not a list', f'it holds text that is no JSON list: {value[:40]!r}')
    if not isinstance(value, list):
        raise RowError(f'column `{name}` is not a list', f'it holds a {type(value).__name__}')
    return value


def structured(row: dict, name: str) -> Any:
    """Return what the column `name` holds; JSON text of a list or an object as that list or object."""
    value = row.get(name)
    if isinstance(value, str) and value.lstrip()[:1] in ('[', '{'):
        try:
            return parsed(row, value)
        except (ValueError, RecursionError):
            return value
    return value


def is_messages(value: Any) -> bool:
    """Tell whether `value` is a list of messages: objects with a role."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) and 'role' in item for item in value)


def pairs(row: dict, name: str = 'history') -> list[Message]:
    """Return the pairs of earlier question and reply in the column `name` as messages; none if it is empty.

    Raises:
        RowError: It holds something else.
    """
    value = structured(row, name)
    if is_empty(value):
        return []
    if not isinstance(value, list):
        raise RowError(f'column `{name}` is not a list of pairs', f'it holds a {type(value).__name__}')
    messages: list[Message] = []
    for number, pair in enumerate(value, 1):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise RowError(f'column `{name}` is not a list of pairs', f'entry {number} is {str(pair)[:60]!r}')
        messages += exchange(*pair)
    return messages


def before_last_exchange(messages: list[Message], earlier: list[Message]) -> list[Message]:
    """Return `messages` with `earlier` ones before their last question."""
    return messages[:-2] + earlier + messages[-2:]


def is_empty(value: object) -> bool:
    """Tell whether a cell is empty: null, NaN or blank."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def _filled(row: dict) -> str:
    return ', '.join(str(name) for name, value in row.items() if value is not None) or 'none'
