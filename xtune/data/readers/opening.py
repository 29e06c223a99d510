"""Open a text file, plain or gzip-compressed, and read its lines; errors name the exact place of a fault."""

import codecs
import gzip
import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from ...errors import DataError

Rows = Iterator[tuple[int, dict[str, Any]]]
Note = Callable[[str], object]  # called with a sentence about a part of a file that is skipped
MAX_LINE = 64 << 20  # characters; a line, a csv row, or a row of a .json list must fit in memory
BLOCK = 1 << 20  # characters or bytes per read

CONVERT, TO = 'convert it to UTF-8, e.g. `iconv -f', '-t UTF-8 old > new`'

# First bytes, what the file is, what to do, and the suffix for which these bytes are correct.
SIGNATURES = (
    (b'\xff\xfe\0\0', 'is UTF-32 text', f'{CONVERT} UTF-32 {TO}', None),
    (b'\0\0\xfe\xff', 'is UTF-32 text', f'{CONVERT} UTF-32 {TO}', None),
    (b'\xff\xfe', 'is UTF-16 text', f'{CONVERT} UTF-16 {TO}', None),
    (b'\xfe\xff', 'is UTF-16 text', f'{CONVERT} UTF-16 {TO}', None),
    (
        b'\x1f\x8b',
        'is compressed with gzip',
        'add .gz to its name (only text formats may be compressed)',
        None,
    ),
    (b'(\xb5/\xfd', 'is compressed with zstd', 'decompress it', None),
    (b'PK\x03\x04', 'is a zip archive or a workbook', 'unzip it, or name it .xlsx', '.xlsx'),
    (b'PAR1\x15', 'is a Parquet file', 'name it .parquet', '.parquet'),
    (
        b'\xd0\xcf\x11\xe0',
        'is an .xls workbook, or one with a password',
        'save it as .xlsx without a password',
        None,
    ),
    (b'%PDF-', 'is a PDF', 'extract its text first', None),
    (b'<!DOCTYPE html', 'is a web page', 'download the file itself', '.txt'),
    (b'<!doctype html', 'is a web page', 'download the file itself', '.txt'),
    (b'<html', 'is a web page', 'download the file itself', '.txt'),
    (b'version https://git-lfs', 'is a Git LFS pointer, not the data', 'fetch the data with `git lfs pull`', None),
)


def fault(path: Path, what: str, where: str | None = None) -> DataError:
    """Return the error to raise; lone surrogates in it are escaped, so that it can be printed."""
    text = f'{path}, {where}: {what}' if where else f'{path} {what}'
    return DataError(text.encode('utf-8', 'backslashreplace').decode())


def is_gz(path: Path) -> bool:
    """Return whether the name ends in .gz."""
    return path.suffix.lower() == '.gz'


def inner_suffix(path: Path) -> str:
    """Return the suffix that names the format, in lower case: `.jsonl` for both `a.jsonl` and `a.jsonl.gz`."""
    return Path(path.stem).suffix.lower() if is_gz(path) else path.suffix.lower()


def open_bytes(path: Path) -> BinaryIO:
    """Open a file for reading bytes, through gzip if its name ends in .gz."""
    return gzip.open(path) if is_gz(path) else path.open('rb')


def open_text(path: Path, newline: str | None = None) -> TextIO:
    """Open a file as UTF-8, with or without a byte order mark, through gzip if its name ends in .gz."""
    return io.TextIOWrapper(open_bytes(path), encoding='utf-8-sig', newline=newline)


def check_start(path: Path) -> None:
    """Check that the first bytes of a file fit its suffix.

    Raises:
        DataError: The file is empty, or something else, e.g. UTF-16, a workbook, a web page, a Git LFS pointer.
    """
    with path.open('rb') as file:
        raw = file.read(4)
    if raw and is_gz(path) and raw[:2] != b'\x1f\x8b':
        raise fault(path, 'is not compressed with gzip; remove .gz from its name')
    with open_bytes(path) as file:
        start = file.read(64)
    if not start:
        raise fault(path, 'is empty')
    for magic, what, fix, correct_suffix in SIGNATURES:
        if start.startswith(magic) and inner_suffix(path) != correct_suffix:
            raise fault(path, f'{what}; {fix}')


def lines(file: TextIO, path: Path, limit: int = MAX_LINE) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, line with its line break). At most `limit` characters are read for a line.

    Raises:
        DataError: A line is longer, or contains a NUL byte.
    """
    for number, line in enumerate(iter(partial(file.readline, limit + 1), ''), 1):
        if len(line) > limit:
            hint = '; a file that is one JSON list must be named .json' if inner_suffix(path) == '.jsonl' else ''
            what = f'this line is longer than {limit:,} characters; split it or leave it out{hint}'
            raise fault(path, what, f'line {number}')
        if '\0' in line:
            raise nul_byte(path, number)
        yield number, line


def nul_byte(path: Path, number: int) -> DataError:
    """Return the error for a line with a NUL byte."""
    what = 'this line contains a NUL byte; the file is damaged, not text, or UTF-16 (then convert it to UTF-8)'
    return fault(path, what, f'line {number}')


def not_utf8(path: Path) -> DataError:
    """Return the error that names the first byte that is not UTF-8, by line and byte in the line, both from 1."""
    line, column, rest = 1, 1, b''
    with open_bytes(path) as file:
        while True:
            block = file.read(BLOCK)
            data = rest + block
            try:
                _, used = codecs.utf_8_decode(data, 'strict', not block)
            except UnicodeDecodeError as error:
                used, reason = error.start, f'{data[error.start]:#04x}, {error.reason}'
            else:
                reason = '' if block else 'the file changed while it was read'
            line += data.count(b'\n', 0, used)
            column = used - data.rfind(b'\n', 0, used) if b'\n' in data[:used] else column + used
            if reason:
                break
            rest = data[used:]
    what = f'is not UTF-8 text (line {line}, byte {column}: {reason}); if it is text, {CONVERT} CP1252 {TO}'
    return fault(path, what)
