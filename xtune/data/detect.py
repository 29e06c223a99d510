"""Tell from the columns of a row which map function fits."""

from difflib import get_close_matches
from typing import Any

from ..errors import DataError
from .map_fns.columns import json_column
from .shapes import SHAPES

# Columns that may hold a list or an object as JSON text.
_AS_TEXT = (
    'messages conversations conversation dialogue contents chosen rejected prompt completion response input '
    'preferred_output'
).split()


def fitting(row: dict) -> str | None:
    """Return the registered name of the map function for rows like `row`, or None."""
    row = {name: _read(row, name) if name in _AS_TEXT else value for name, value in row.items()}
    for shape in SHAPES:
        if all(name in row for name in shape.columns) and shape.test(row):
            return shape.name
    return None


def _read(row: dict, name: str) -> Any:
    value = json_column(row, name)
    return value if isinstance(value, list) and value and isinstance(value[0], dict) else row[name]


def require(row: dict, origin: str) -> str:
    """Return `fitting(row)`.

    Raises:
        DataError: No map function fits the columns; the message shows the formats.
    """
    name = fitting(row)
    if name is None:
        raise DataError(
            f'{origin} has the columns {", ".join(map(str, row))}, which no built-in format has{_near(row)}:\n'
            f'{_table()}\n'
            'Rename the columns; or name the two that hold question and reply: train_dataset.map_fn=pair '
            'train_dataset.map_args.question=COLUMN train_dataset.map_args.answer=COLUMN; or write a map function. '
            '`xtune list-dataset-format` shows a row of each format.'
        )
    return name


def _near(row: dict) -> str:
    """Return which columns are nearly those of a format."""
    known = {name for shape in SHAPES for name in shape.columns} - row.keys()
    found = {str(name): get_close_matches(str(name).lower(), known, 1, 0.85) for name in row}
    near = [f'`{name}` is nearly `{close[0]}`' for name, close in found.items() if close]
    return f' ({"; ".join(near)})' if near else ''


def _table() -> str:
    shown: dict[str, str] = {}
    for shape in SHAPES:
        shown.setdefault(shape.name, shape.shown or ', '.join(shape.columns))
    return '\n'.join(f'  {name:<17}  {columns}' for name, columns in shown.items())
