"""Detect from the columns of a row which map function fits."""

from difflib import get_close_matches
from typing import Any

from ..errors import DataError
from .column_patterns import COLUMN_PATTERNS
from .map_fns.columns import json_column

# Columns that may have a list or an object as JSON text.
_JSON_COLUMNS = (
    'messages conversations conversation dialogue contents chosen rejected prompt completion response input '
    'preferred_output'
).split()


def detect_map_fn(row: dict) -> str | None:
    """Return the registered name of the map function for rows like `row`, or None."""
    row = {name: _parsed(row, name) if name in _JSON_COLUMNS else value for name, value in row.items()}
    for pattern in COLUMN_PATTERNS:
        if all(name in row for name in pattern.columns) and pattern.test(row):
            return pattern.name
    return None


def _parsed(row: dict, name: str) -> Any:
    value = json_column(row, name)
    return value if isinstance(value, list) and value and isinstance(value[0], dict) else row[name]


def require_map_fn(row: dict, origin: str) -> str:
    """Return `detect_map_fn(row)`.

    Raises:
        DataError: No built-in map function fits the columns; the message lists the formats.
    """
    name = detect_map_fn(row)
    if name is None:
        raise DataError(
            f'{origin} has the columns {", ".join(map(str, row))}, which match no built-in format{_similar(row)}:\n'
            f'{_table()}\n'
            'Rename the columns; or name the two with question and reply: train_dataset.map_fn=pair '
            'train_dataset.map_args.question=COLUMN train_dataset.map_args.answer=COLUMN; or write a map function. '
            '`xtune list-dataset-format` shows a row of each format.'
        )
    return name


def _similar(row: dict) -> str:
    """Return which columns have almost the name of a known column."""
    known = {name for pattern in COLUMN_PATTERNS for name in pattern.columns} - row.keys()
    matches = {str(name): get_close_matches(str(name).lower(), known, 1, 0.85) for name in row}
    similar = [f'`{name}` is similar to `{close[0]}`' for name, close in matches.items() if close]
    return f' ({"; ".join(similar)})' if similar else ''


def _table() -> str:
    descriptions: dict[str, str] = {}
    for pattern in COLUMN_PATTERNS:
        descriptions.setdefault(pattern.name, pattern.description or ', '.join(pattern.columns))
    return '\n'.join(f'  {name:<17}  {columns}' for name, columns in descriptions.items())
