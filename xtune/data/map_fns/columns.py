"""What map functions of one question and one reply share."""

from ...templates.system import system_text
from ..conversation import Message, RowError, column, exchange


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
    """Return the list in the first of the columns `names` that the row has.

    Raises:
        RowError: There is none, or it holds no list.
    """
    name = next((name for name in names if row.get(name) is not None), None)
    if name is None:
        raise RowError(f'no column `{names[0]}`', f'the columns with a value are {_filled(row)}')
    if not isinstance(row[name], list):
        raise RowError(f'column `{name}` is not a list', f'it holds a {type(row[name]).__name__}')
    return row[name]


def is_empty(value: object) -> bool:
    """Tell whether a cell is empty: null, NaN or blank."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def _filled(row: dict) -> str:
    return ', '.join(str(name) for name, value in row.items() if value is not None) or 'none'
