"""Rows of .jsonl files (one object per line) and .json files (a list of objects, or an object that contains the list).

Duplicate keys in an object are an error. The check costs little for rows of a few long texts, and a third of the speed
for rows of many short messages.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from ...errors import DataError
from ...utils.visible import shortened
from .json_stream import DECODER, JsonStream, json_error
from .opening import BLOCK, MAX_LINE, Note, Rows, fault, lines, open_text

_TYPES = {str: 'a string', list: 'a list', dict: 'an object', int: 'a number', float: 'a number', bool: 'a boolean'}
_ONE_PER_LINE = '. In a .jsonl file each row is one line; if the file is one JSON list, name it .json'
_BY_ROW = 'write one object per row: [{"instruction": ..., "output": ...}, ...] (pandas: orient=\'records\')'


def read_jsonl(path: Path) -> Rows:
    """Yield (line, row)."""
    with open_text(path) as file:
        yield from _object_lines(file, path)


def read_json(path: Path, note: Note = str) -> Rows:
    """Yield (position from 1, row); (line, row) if the file has one object per line, in spite of its name.

    If the rows are a list in an object, `note` is called for each other value of the object.
    """
    with open_text(path) as file:
        stream = JsonStream(file, path)
        start = stream.peek()
        if start == '{':
            file.seek(0)
            by_line = _has_object_lines(file)
            file.seek(0)
            if by_line:
                yield from _object_lines(file, path)
                return
            stream = JsonStream(file, path)
            yield from _wrapped(stream, path, note)
        elif start == '[':
            yield from _numbered(stream.elements(), path)
        else:
            raise fault(path, f'contains {_type_name(stream.value())}, not a list of rows; put the rows into [ ... ]')
        stream.end()


def _type_name(value: Any) -> str:
    return _TYPES.get(type(value), 'null')


def _object_lines(file: TextIO, path: Path) -> Rows:
    for number, line in lines(file, path):
        if line.isspace():
            continue
        try:
            row, end = DECODER.raw_decode(line) if line[0] == '{' else (None, 0)
            if line[end:] != '\n':
                row = DECODER.decode(line)  # allows whitespace around the object
        except (ValueError, RecursionError) as error:
            hint = _ONE_PER_LINE if line.strip() in ('[', '{') else ''
            raise json_error(path, error, line.rstrip(), number, hint=hint) from error
        if type(row) is not dict:
            raise _not_an_object(path, row, f'line {number}', _ONE_PER_LINE if isinstance(row, list) else '')
        yield number, row


def _has_object_lines(file: TextIO) -> bool:
    """Return whether the first line is a complete object and other lines follow."""
    first = next(line for line in iter(partial(file.readline, MAX_LINE), '') if not line.isspace())
    if all(block.isspace() for block in iter(partial(file.read, BLOCK), '')):
        return False
    try:
        DECODER.decode(first)
    except (json.JSONDecodeError, RecursionError):
        return False
    except ValueError:
        return True  # the syntax is valid; the line reader reports what is wrong
    return True


def _numbered(elements: Iterator[Any], path: Path) -> Rows:
    for number, row in enumerate(elements, 1):
        if type(row) is not dict:
            raise _not_an_object(path, row, f'row {number}')
        yield number, row


def _not_an_object(path: Path, row: Any, where: str, hint: str = '') -> DataError:
    if isinstance(row, str):
        hint = '; write plain text as {"text": "..."}, or one text per line in a .txt file'
    shown = repr(row)
    shown = shown if len(shown) <= 60 else f'{shown[:60]}...'
    what = f'a row must be an object with named columns, got {_type_name(row)}: {shown}{hint}'
    return fault(path, what, where)


def _wrapped(stream: JsonStream, path: Path, note: Note) -> Rows:
    """Yield the rows of the only list in the object; `note` is called for its other values.

    A second list raises an error when it is reached, after the rows of the first.
    """
    list_key: str | None = None
    keys = []
    delimiter = stream.take('{')
    if stream.peek() == '}':
        delimiter = stream.take('}')
    while delimiter != '}':
        keys.append(key := stream.key())
        if stream.peek() != '[':
            _check_not_by_column(path, key, value := stream.value())
            if value not in (None, '', {}):
                note(f'key `{key}` of {path}: it is next to the rows and contains {shortened(value)}')
        elif list_key is None:
            list_key = key
            yield from _rows_of(stream.elements(), path, key)
        else:
            raise fault(path, f'contains two lists, `{list_key}` and `{key}`; keep one, or write each to its own file')
        delimiter = stream.take(',}')
    if list_key is None and stream.peek() == '{':
        raise fault(
            path, 'contains objects outside a list; put them into [ ... ], separated by commas, or one on each line'
        )
    if list_key is None:
        names = ', '.join(f'`{key}`' for key in keys[:8]) or 'empty'
        raise fault(path, f'contains one object ({names}), not a list of rows; put the rows into [ ... ]')


def _rows_of(elements: Iterator[Any], path: Path, key: str) -> Rows:
    for number, row in enumerate(elements, 1):
        if number == 1 and type(row) is not dict:
            what = f'contains a list `{key}` whose first element is {_type_name(row)}, not a row.'
            raise fault(path, f'{what} If it has one list per column, {_BY_ROW}; else keep only the list of rows')
        if type(row) is not dict:
            raise _not_an_object(path, row, f'row {number} of `{key}`')
        yield number, row


def _check_not_by_column(path: Path, key: str, value: Any) -> None:
    if isinstance(value, dict) and '0' in value:
        raise fault(path, f'is written by column (`{key}` contains the cells 0, 1, ...); {_BY_ROW}')
