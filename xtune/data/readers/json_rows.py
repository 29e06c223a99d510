"""Rows of .jsonl (one object a line) and .json (one list of objects, or one object that holds the list) files.

An object with a key twice is refused. The check costs little where rows are a few long texts, and a third of the speed
where they are many short messages.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from ...errors import DataError
from ...utils.visible import shortened
from .json_stream import DECODER, JsonStream, broken
from .opening import BLOCK, MAX_LINE, Note, Rows, fault, lines, open_text

_KINDS = {str: 'a text', list: 'a list', dict: 'an object', int: 'a number', float: 'a number', bool: 'true or false'}
_ONE_A_LINE = '. In a .jsonl file each row is one line; if the file is one JSON list, name it .json'
_ROW_WISE = 'write one object a row: [{"instruction": ..., "output": ...}, ...] (pandas: orient=\'records\')'


def read_jsonl(path: Path) -> Rows:
    """Yield (line, row)."""
    with open_text(path) as file:
        yield from _object_lines(file, path)


def read_json(path: Path, note: Note = str) -> Rows:
    """Yield (position from 1, row); (line, row) if the file has one object a line, whatever it is called.

    If the rows are a list in an object, `note` is told of what else the object holds.
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
            raise fault(path, f'holds {_kind(stream.value())}, not a list of rows; put the rows into [ ... ]')
        stream.end()


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), 'null')


def _object_lines(file: TextIO, path: Path) -> Rows:
    for number, line in lines(file, path):
        if line.isspace():
            continue
        try:
            row, end = DECODER.raw_decode(line) if line[0] == '{' else (None, 0)
            if line[end:] != '\n':
                row = DECODER.decode(line)  # which allows blanks around it
        except (ValueError, RecursionError) as error:
            hint = _ONE_A_LINE if line.strip() in ('[', '{') else ''
            raise broken(path, error, line.rstrip(), number, hint=hint) from error
        if type(row) is not dict:
            raise _no_object(path, row, f'line {number}', _ONE_A_LINE if isinstance(row, list) else '')
        yield number, row


def _has_object_lines(file: TextIO) -> bool:
    """Tell whether the first line is an object by itself and more than blanks follow it."""
    first = next(line for line in iter(partial(file.readline, MAX_LINE), '') if not line.isspace())
    if all(block.isspace() for block in iter(partial(file.read, BLOCK), '')):
        return False
    try:
        DECODER.decode(first)
    except (json.JSONDecodeError, RecursionError):
        return False
    except ValueError:
        return True  # its syntax is right; the reader of lines says what is wrong with it
    return True


def _numbered(elements: Iterator[Any], path: Path) -> Rows:
    for number, row in enumerate(elements, 1):
        if type(row) is not dict:
            raise _no_object(path, row, f'row {number}')
        yield number, row


def _no_object(path: Path, row: Any, where: str, hint: str = '') -> DataError:
    if isinstance(row, str):
        hint = '; plain text is written {"text": "..."}, or one text a line in a .txt file'
    shown = repr(row)
    shown = shown if len(shown) <= 60 else f'{shown[:60]}...'
    what = f'a row must be an object with named columns, got {_kind(row)}: {shown}{hint}'
    return fault(path, what, where)


def _wrapped(stream: JsonStream, path: Path, note: Note) -> Rows:
    """Yield the rows of the one list that the object holds; `note` is told of its other values.

    A second list is an error only where it starts, after the rows of the first.
    """
    found: str | None = None
    keys = []
    mark = stream.take('{')
    if stream.peek() == '}':
        mark = stream.take('}')
    while mark != '}':
        keys.append(key := stream.key())
        if stream.peek() != '[':
            _check_no_table(path, key, value := stream.value())
            if value not in (None, '', {}):
                note(f'key `{key}` of {path}, which stands beside the rows and holds {shortened(value)}')
        elif found is None:
            found = key
            yield from _rows_of(stream.elements(), path, key)
        else:
            raise fault(path, f'holds two lists, `{found}` and `{key}`; keep one, or write each to a file of its own')
        mark = stream.take(',}')
    if found is None and stream.peek() == '{':
        raise fault(
            path, 'holds objects that are no list; put them into [ ... ], with commas between, or one on each line'
        )
    if found is None:
        names = ', '.join(f'`{key}`' for key in keys[:8]) or 'empty'
        raise fault(path, f'holds one object ({names}), not a list of rows; put the rows into [ ... ]')


def _rows_of(elements: Iterator[Any], path: Path, key: str) -> Rows:
    for number, row in enumerate(elements, 1):
        if number == 1 and type(row) is not dict:
            what = f'holds a list `{key}` of which the first element is {_kind(row)}, not a row.'
            raise fault(path, f'{what} If it has one list a column, {_ROW_WISE}; else keep only the list of rows')
        if type(row) is not dict:
            raise _no_object(path, row, f'row {number} of `{key}`')
        yield number, row


def _check_no_table(path: Path, key: str, value: Any) -> None:
    if isinstance(value, dict) and '0' in value:
        raise fault(path, f'is written column by column (`{key}` holds the cells 0, 1, ...); {_ROW_WISE}')
