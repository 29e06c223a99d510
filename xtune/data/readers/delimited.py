"""Rows of .csv and .tsv files: the header names the columns, and every row has as many fields."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TextIO

from ...errors import DataError
from .opening import MAX_LINE, Note, Rows, fault, inner_suffix, lines, open_text

MAX_LINES = 10_000  # of one row; a longer one is a quote that is never closed
MARKS = ',;\t|'


def read_csv(path: Path, note: Note = str) -> Rows:
    """Yield (line on which the row starts, row). Columns without a name, and rows of empty fields, are left out.

    `note` is told of a column without a name that holds more than the numbers of the rows, as pandas writes them.
    The delimiter is the comma (.tsv: tab); if the header is one column by it, the one of `, ; tab |` that gives most.
    """
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE))  # of the process; what limits a row here is `_Lines`
    with open_text(path, newline='') as file:
        source = _Lines(file, path)
        pieces = iter(source)
        header = next((line for line in pieces if line.strip()), '')
        mark = _delimiter(header, '\t' if inner_suffix(path) == '.tsv' else ',')
        reader = csv.reader(chain([header], pieces), delimiter=mark, strict=True)
        try:
            names = next(reader, [])
            check_names(path, names)
            yield from _rows(reader, source, names, mark, note)
        except csv.Error as error:
            raise source.unclosed(f'line {source.last}: {error}') from error


def _rows(reader: Iterator[list[str]], source: '_Lines', names: list[str], mark: str, note: Note) -> Rows:
    unnamed = [index for index, name in enumerate(names) if not name.strip()]
    source.next_row()
    count = 0
    for fields in reader:
        if any(fields):
            if len(fields) != len(names):
                raise fault(source.path, _not_as_many(fields, names, mark), source.place())
            row = dict(zip(names, fields, strict=True))
            for index in unnamed:
                row.pop(names[index], None)
                if fields[index] not in ('', str(count), str(count + 1)):
                    note(f'column `{index + 1}` of {source.path}: it has no name in the first row')
            count += 1
            yield source.first, row
        source.next_row()


def check_names(path: Path, names: Iterable[str], where: str | None = None) -> None:
    """Check the names of columns; blank ones may be there.

    Raises:
        DataError: All are blank, or one is there twice.
    """
    counts = Counter(name for name in names if name.strip())
    if not counts:
        raise fault(path, 'names no columns; the first row that is not empty must be the header', where)
    twice = ', '.join(f'`{name}`' for name, count in counts.items() if count > 1)
    if twice:
        raise fault(path, f'has more than one column {twice}; rename or remove all but one', where)


class _Lines:
    """The lines of a file for `csv.reader`, which asks for another one as long as a quote is open.

    Raises DataError where a row has more than MAX_LINES lines or MAX_LINE characters.
    """

    def __init__(self, file: TextIO, path: Path) -> None:
        self.file, self.path = file, path
        self.first, self.last = 1, 0  # lines of the row
        self.opened, self.size, self.line = 1, 0, ''

    def __iter__(self) -> Iterator[str]:
        for number, line in lines(self.file, self.path):
            if self.size:
                self._go_on()
            self.last, self.line = number, line
            self.size += len(line)
            yield line
        if self.size:
            self._go_on()

    def _go_on(self) -> None:
        # A quote is open: it opened on the last line that has one, doubled ones aside.
        if '"' in self.line and '"' in self.line.replace('""', ''):
            self.opened = self.last
        if self.size > MAX_LINE or self.last - self.first >= MAX_LINES:
            raise self.unclosed(f'still open on line {self.last}')

    def next_row(self) -> None:
        """Count anew from the next line."""
        self.first = self.opened = self.last + 1
        self.size = 0

    def place(self) -> str:
        """Return the line or lines of the row."""
        return f'line {self.first}' if self.first == self.last else f'lines {self.first} to {self.last}'

    def unclosed(self, seen: str) -> DataError:
        """Return the error for a quoted field that does not end as it should."""
        what = f'the quoted field that opens here has no right end ({seen}); close it, and double quotes inside it ("")'
        return fault(self.path, what, f'line {self.opened}')


def _delimiter(header: str, usual: str) -> str:
    # Not strict: a quoted field that ends on a later line, or before another delimiter, is no fault at this point.
    if len(next(csv.reader([header], delimiter=usual), [])) > 1:
        return usual
    widths = {usual: 1}
    for mark in MARKS.replace(usual, ''):
        try:
            widths[mark] = len(next(csv.reader([header], delimiter=mark, strict=True), []))
        except csv.Error:
            continue
    return max(widths, key=widths.get)


def _not_as_many(fields: list[str], names: list[str], mark: str) -> str:
    by = 'tab' if mark == '\t' else f'`{mark}`'
    return (
        f'this row has not the {len(names)} columns of the header but {len(fields)} (delimiter: {by}); '
        'put a field that holds the delimiter, a line break or a quote into double quotes'
    )
