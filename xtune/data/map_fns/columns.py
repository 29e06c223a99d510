"""Helpers of map functions: read columns, build a conversation of one question and one response."""

from typing import Any

from ...messages import Message, RowError, column, exchange
from ...templates.system_prompts import system_text
from ..tracked_dict import parse_json


def question_and_response(
    row: dict, questions: tuple[str, ...], response: str, system: str | None = None, row_system: str = ''
) -> list[Message]:
    """Return a conversation whose question is the columns `questions`, one per line; empty columns are skipped.

    Args:
        row: One row of a data set.
        questions: Names of columns.
        response: Name of a column.
        system: Name of a built-in system prompt, or a text; None: no system message.
        row_system: The system text in the row; it takes precedence over `system`.

    Raises:
        RowError: A column is missing or does not contain text.
    """
    parts = [column(row, name) for name in questions]
    question = '\n'.join(part for part in parts if part)
    return exchange(question, column(row, response), row_system or (system and system_text(system)))


def list_column(row: dict, *names: str) -> list:
    """Return the list in the first of the columns `names` that has a value; JSON text of a list is parsed.

    Raises:
        RowError: None of the columns has a value, or it is not a list.
    """
    name = next((name for name in names if row.get(name) is not None), None)
    if name is None:
        raise RowError(f'no column `{names[0]}`', f'the columns with a value are {_filled(row)}')
    value = json_column(row, name)
    if isinstance(value, str):
        raise RowError(f'column `{name}` is not a list', f'it contains text that is not a JSON list: {value[:40]!r}')
    if not isinstance(value, list):
        raise RowError(f'column `{name}` is not a list', f'it contains a {type(value).__name__}')
    return value


def json_column(row: dict, name: str) -> Any:
    """Return the value of column `name`; JSON text of a list or an object is parsed."""
    value = row.get(name)
    if isinstance(value, str) and value.lstrip()[:1] in ('[', '{'):
        try:
            return parse_json(row, value)
        except (ValueError, RecursionError):
            return value
    return value


def is_messages(value: Any) -> bool:
    """Return whether `value` is a list of messages: objects with a role."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) and 'role' in item for item in value)


def history_messages(row: dict, name: str = 'history') -> list[Message]:
    """Return the pairs of an earlier question and response in column `name` as messages; [] if the column is empty.

    Raises:
        RowError: The column contains something else.
    """
    value = json_column(row, name)
    if is_empty(value):
        return []
    if not isinstance(value, list):
        raise RowError(f'column `{name}` is not a list of pairs', f'it contains a {type(value).__name__}')
    messages: list[Message] = []
    for number, pair in enumerate(value, 1):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise RowError(f'column `{name}` is not a list of pairs', f'entry {number} is {str(pair)[:60]!r}')
        messages += exchange(*pair)
    return messages


def insert_before_last_exchange(messages: list[Message], earlier: list[Message]) -> list[Message]:
    """Return `messages` with `earlier` messages inserted before the last question and response."""
    return messages[:-2] + earlier + messages[-2:]


def is_empty(value: object) -> bool:
    """Return whether a cell is empty: null, NaN or blank."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def _filled(row: dict) -> str:
    return ', '.join(str(name) for name, value in row.items() if value is not None) or 'none'
