"""Read one JSON text of any size value by value; errors name the exact place of a fault."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO

from ...errors import DataError
from .opening import BLOCK, MAX_LINE, fault, nul_byte

_BLANK = re.compile(r'[ \t\n\r]*')
_COMMA = re.compile(r'[ \t\n\r]*,[ \t\n\r]*')
_LONGEST_TOKEN = 16  # characters (`-Infinity`, a pair of \uXXXX); closer to the end, an error may be a truncated token


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) == len(pairs):
        return row
    names = [name for name, _ in pairs]
    duplicate = next(name for name in names if names.count(name) > 1)
    raise ValueError(f'duplicate key `{duplicate}` in one object; rename or remove one')


def _constant(token: str) -> float:
    if token == 'NaN':  # table libraries write it for an empty cell
        return float('nan')
    raise ValueError(f'{token} cannot be trained on; write a number or null')


DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constant)


def json_error(
    path: Path, error: ValueError | RecursionError, text: str, line: int, before: int = 0, hint: str = ''
) -> DataError:
    """Return the error for `text`, which starts at `line` after `before` characters of that line."""
    if isinstance(error, RecursionError):
        return fault(path, 'invalid JSON: brackets are nested too deeply', f'line {line}')
    if not isinstance(error, json.JSONDecodeError):
        return fault(path, str(error), f'line {line}')
    message = error.msg.removesuffix(' at')  # some messages end with it, for a position in another format
    last = text.rfind('\n', 0, error.pos)
    column = error.pos - last if last >= 0 else before + error.pos + 1
    near = ' '.join(text[max(0, error.pos - 30) : error.pos + 30].split())
    where = f'line {line + text.count(chr(10), 0, error.pos)}'
    return fault(path, f'invalid JSON: {message} at column {column}: {near}{hint}', where)


class JsonStream:
    """A JSON text of which only one block and the current value are in memory.

    Every method raises DataError if the text is invalid, or if a value is longer than `limit` characters.
    """

    def __init__(self, file: TextIO, path: Path, limit: int = MAX_LINE) -> None:
        self.file, self.path, self.limit = file, path, limit
        self.text, self.at = '', 0
        self.line, self.before = 1, 0  # line of text[0], and the number of characters before it on that line

    def peek(self) -> str:
        """Skip whitespace and return the next character; '' at the end of the file."""
        while True:
            self.at = _BLANK.match(self.text, self.at).end()
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._read_more():
                return ''

    def take(self, expected: str) -> str:
        """Consume and return the next character, which must be one of `expected`."""
        character = self.peek()
        if not character or character not in expected:
            self.fail(' or '.join(f"'{c}'" for c in expected))
        self.at += 1
        return character

    def value(self) -> Any:
        """Consume and return the next value."""
        if not self.text.startswith('{', self.at) and not self.peek():
            self.fail('a value')
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.at)
                # A number may continue in the next block; the other types have an end of their own.
                complete = isinstance(value, (dict, list, str)) or end < len(self.text) - _LONGEST_TOKEN
                if complete or not self._read_more():
                    self.at = end
                    return value
            except json.JSONDecodeError as error:
                truncated = error.msg.startswith('Unterminated string') or error.pos > len(self.text) - _LONGEST_TOKEN
                if not truncated or not self._read_more():
                    raise self._error(error) from error
            except (ValueError, RecursionError) as error:
                line = self.line + self.text.count('\n', 0, self.at)
                raise json_error(self.path, error, self.text, line) from error

    def key(self) -> str:
        """Consume the next key of an object and its colon; return the key."""
        if self.peek() != '"':
            self.fail('a key in double quotes')
        name = self.value()
        self.take(':')
        return name

    def elements(self) -> Iterator[Any]:
        """Consume the next list and yield its elements."""
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
            self.fail('the end of the file')

    def fail(self, expected: str) -> NoReturn:
        """Raise the error that `expected` is not at the current position."""
        raise self._error(json.JSONDecodeError(f'Expecting {expected}', self.text, self.at))

    def _read_more(self) -> bool:
        left = len(self.text) - self.at
        if left > self.limit:
            where = f'line {self.line + self.text.count(chr(10), 0, self.at)}'
            what = f'the value that starts here is longer than {self.limit:,} characters; split it or leave it out'
            raise fault(self.path, what, where)
        # Double the amount: a long value is parsed a few times, not once per block.
        block = self.file.read(max(BLOCK, min(left, self.limit + 1 - left)))
        if not block:
            return False
        last = self.text.rfind('\n', 0, self.at)
        self.before = self.before + self.at if last < 0 else self.at - last - 1
        self.line += self.text.count('\n', 0, self.at)
        self.text, self.at = self.text[self.at :] + block, 0
        if '\0' in block:
            raise nul_byte(self.path, self.line + self.text.count('\n', 0, self.text.index('\0')))
        return True

    def _error(self, error: json.JSONDecodeError) -> DataError:
        at_end = error.msg.startswith('Unterminated string') or not self.text[error.pos :].strip()
        hint = '. The file ends here: it is truncated, or a bracket or quote is not closed' if at_end else ''
        return json_error(self.path, error, self.text, self.line, self.before, hint)
