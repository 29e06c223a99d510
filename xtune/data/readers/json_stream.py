"""Read one JSON text of any size value by value, with the place of what is broken in it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO

from ...errors import DataError
from .opening import BLOCK, MAX_LINE, fault, holds_nul

_BLANK = re.compile(r'[ \t\n\r]*')
_COMMA = re.compile(r'[ \t\n\r]*,[ \t\n\r]*')
_LONGEST_TOKEN = 16  # characters; `-Infinity` or a pair of \uXXXX: nearer to the end, a fault may be a token cut in two


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) == len(pairs):
        return row
    names = [name for name, _ in pairs]
    twice = next(name for name in names if names.count(name) > 1)
    raise ValueError(f'the key `{twice}` is there twice in one object; rename or remove one')


def _constant(token: str) -> float:
    if token == 'NaN':  # tables write it for an empty cell
        return float('nan')
    raise ValueError(f'{token} is no value for training; write a number or null')


DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constant)


def broken(
    path: Path, error: ValueError | RecursionError, text: str, line: int, before: int = 0, hint: str = ''
) -> DataError:
    """Return the error for `text`, which starts at `line` after `before` characters of that line."""
    if isinstance(error, RecursionError):
        return fault(path, 'broken JSON: brackets are nested too deeply', f'line {line}')
    if not isinstance(error, json.JSONDecodeError):
        return fault(path, str(error), f'line {line}')
    message = error.msg.removesuffix(' at')  # some end so, for a position of another form
    last = text.rfind('\n', 0, error.pos)
    column = error.pos - last if last >= 0 else before + error.pos + 1
    near = ' '.join(text[max(0, error.pos - 30) : error.pos + 30].split())
    where = f'line {line + text.count(chr(10), 0, error.pos)}'
    return fault(path, f'broken JSON: {message} at column {column}: {near}{hint}', where)


class JsonStream:
    """A JSON text of which only a block and the value at hand stand in memory.

    Every method raises DataError where the text is broken, or where a value is longer than `limit` characters.
    """

    def __init__(self, file: TextIO, path: Path, limit: int = MAX_LINE) -> None:
        self.file, self.path, self.limit = file, path, limit
        self.text, self.at = '', 0
        self.line, self.before = 1, 0  # of text[0]: its line, and how many characters of that line precede it

    def peek(self) -> str:
        """Go to the next character that is not blank and return it; '' at the end of the file."""
        while True:
            self.at = _BLANK.match(self.text, self.at).end()
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._read_more():
                return ''

    def take(self, marks: str) -> str:
        """Return the next character, which must be one of `marks`, and go past it."""
        mark = self.peek()
        if not mark or mark not in marks:
            self.expected(' or '.join(f"'{m}'" for m in marks))
        self.at += 1
        return mark

    def value(self) -> Any:
        """Return the next value and go past it."""
        if not self.text.startswith('{', self.at) and not self.peek():
            self.expected('a value')
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.at)
                # A number may go on in the next block; the other kinds have an end of their own.
                whole = isinstance(value, (dict, list, str)) or end < len(self.text) - _LONGEST_TOKEN
                if whole or not self._read_more():
                    self.at = end
                    return value
            except json.JSONDecodeError as error:
                cut = error.msg.startswith('Unterminated string') or error.pos > len(self.text) - _LONGEST_TOKEN
                if not cut or not self._read_more():
                    raise self._broken(error) from error
            except (ValueError, RecursionError) as error:
                line = self.line + self.text.count('\n', 0, self.at)
                raise broken(self.path, error, self.text, line) from error

    def key(self) -> str:
        """Return the next key of an object and go past its colon."""
        if self.peek() != '"':
            self.expected('a key in double quotes')
        name = self.value()
        self.take(':')
        return name

    def elements(self) -> Iterator[Any]:
        """Yield the elements of the list that comes next, and go past it."""
        self.take('[')
        if self.peek() == ']':
            self.at += 1
            return
        while True:
            yield self.value()
            comma = _COMMA.match(self.text, self.at)
            if comma:
                self.at = comma.end()
            elif self.take(',]') == ']':
                return

    def end(self) -> None:
        """Check that nothing follows."""
        if self.peek():
            self.expected('the end of the file')

    def expected(self, what: str) -> NoReturn:
        """Raise the error that something else stands here."""
        raise self._broken(json.JSONDecodeError(f'Expecting {what}', self.text, self.at))

    def _read_more(self) -> bool:
        left = len(self.text) - self.at
        if left > self.limit:
            where = f'line {self.line + self.text.count(chr(10), 0, self.at)}'
            what = f'the value that starts here is longer than {self.limit:,} characters; split it or leave it out'
            raise fault(self.path, what, where)
        # As much again: a long value is tried a few times, not once a block.
        block = self.file.read(max(BLOCK, min(left, self.limit + 1 - left)))
        if not block:
            return False
        last = self.text.rfind('\n', 0, self.at)
        self.before = self.before + self.at if last < 0 else self.at - last - 1
        self.line += self.text.count('\n', 0, self.at)
        self.text, self.at = self.text[self.at :] + block, 0
        if '\0' in block:
            raise holds_nul(self.path, self.line + self.text.count('\n', 0, self.text.index('\0')))
        return True

    def _broken(self, error: json.JSONDecodeError) -> DataError:
        ends = error.msg.startswith('Unterminated string') or not self.text[error.pos :].strip()
        hint = '. Here the file ends: it is cut off, or something is not closed' if ends else ''
        return broken(self.path, error, self.text, self.line, self.before, hint)
