"""Rows of .csv and .tsv files: the header names the columns, and every row must have as many fields."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TextIO

from ...errors import DataError
from .opening import MAX_LINE, Note, Rows, fault, inner_suffix, lines, open_text

MAX_LINES = 10_000  # of one row; a longer row means an unclosed quote
DELIMITERS = ',;\t|'


def read_csv(path: Path, note: Note = str) -> Rows:
    """Yield (line on which the row starts, row). Columns without a name and rows of empty fields are left out.

    `note` is called for a column without a name that contains more than row numbers, which pandas writes.
    The delimiter is the comma (.tsv: tab). If it gives only one column, the one of `, ; tab |` that gives the most.
    """
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE))  # process-wide; `_Lines` limits the rows here
    with open_text(path, newline='') as file:
        source = _Lines(file, path)
        numbered = iter(source)
        header = next((line for line in numbered if line.strip()), '')
        delimiter = _delimiter(header, '\t' if inner_suffix(path) == '.tsv' else ',')
        reader = csv.reader(chain([header], numbered), delimiter=delimiter, strict=True)
        try:
            names = next(reader, [])
            check_column_names(path, names)
            yield from _rows(reader, source, names, delimiter, note)
        except csv.Error as error:
            raise source.unclosed(f'line {source.last}: {error}') from error


def _rows(reader: Iterator[list[str]], source: '_Lines', names: list[str], delimiter: str, note: Note) -> Rows:
    unnamed = [index for index, name in enumerate(names) if not name.strip()]
    source.next_row()
    count = 0
    for fields in reader:
        if any(fields):
            if len(fields) != len(names):
                raise fault(source.path, _wrong_field_count(fields, names, delimiter), source.place())
            row = dict(zip(names, fields, strict=True))
            for index in unnamed:
                row.pop(names[index], None)
                if fields[index] not in ('', str(count), str(count + 1)):
                    note(f'column `{index + 1}` of {source.path}: it has no name in the first row')
            count += 1
            yield source.first, row
        source.next_row()


def check_column_names(path: Path, names: Iterable[str], where: str | None = None) -> None:
    """Check column names; blank names are allowed.

    Raises:
        DataError: All names are blank, or one occurs twice.
    """
    counts = Counter(name for name in names if name.strip())
    if not counts:
        raise fault(path, 'has no column names; the first row that is not empty must be the header', where)
    duplicates = ', '.join(f'`{name}`' for name, count in counts.items() if count > 1)
    if duplicates:
        raise fault(path, f'has duplicate columns {duplicates}; rename or remove all but one', where)


class _Lines:
    """The lines of a file for `csv.reader`, which reads further lines while a quote is open.

    Raises DataError if a row has more than MAX_LINES lines or MAX_LINE characters.
    """

    def __init__(self, file: TextIO, path: Path) -> None:
        self.file, self.path = file, path
        self.first, self.last = 1, 0  # lines of the row
        self.quote_line, self.size, self.line = 1, 0, ''

    def __iter__(self) -> Iterator[str]:
        for number, line in lines(self.file, self.path):
            if self.size:
                self._continue_row()
            self.last, self.line = number, line
            self.size += len(line)
            yield line
        if self.size:
            self._continue_row()

    def _continue_row(self) -> None:
        # A quote is open: it opened on the last line that has a quote other than a doubled one.
        if '"' in self.line and '"' in self.line.replace('""', ''):
            self.quote_line = self.last
        if self.size > MAX_LINE or self.last - self.first >= MAX_LINES:
            raise self.unclosed(f'still open on line {self.last}')

    def next_row(self) -> None:
        """Start a new row on the next line."""
        self.first = self.quote_line = self.last + 1
        self.size = 0

    def place(self) -> str:
        """Return the line or lines of the row."""
        return f'line {self.first}' if self.first == self.last else f'lines {self.first} to {self.last}'

    def unclosed(self, detail: str) -> DataError:
        """Return the error for a quoted field without a correct end."""
        what = f'the quoted field that opens here is not closed ({detail}); close it, and double quotes inside it ("")'
        return fault(self.path, what, f'line {self.quote_line}')


def _delimiter(header: str, default: str) -> str:
    # Not strict: a quoted field may end on a later line, or before another delimiter.
    if len(next(csv.reader([header], delimiter=default), [])) > 1:
        return default
    num_columns = {default: 1}
    for delimiter in DELIMITERS.replace(default, ''):
        try:
            num_columns[delimiter] = len(next(csv.reader([header], delimiter=delimiter, strict=True), []))
        except csv.Error:
            continue
    return max(num_columns, key=num_columns.get)


def _wrong_field_count(fields: list[str], names: list[str], delimiter: str) -> str:
    shown = 'tab' if delimiter == '\t' else f'`{delimiter}`'
    return (
        f'this row has {len(fields)} fields, the header has {len(names)} columns (delimiter: {shown}); '
        'put fields that contain the delimiter, a line break or a quote in double quotes'
    )
