"""Rows of .xlsx workbooks: the first row that is not empty names the columns."""

import datetime
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import ParseError

from ...errors import DataError
from .delimited import check_names
from .opening import Note, Rows, fault
from .sheets import Merged, Sheet, column_letters, has_formulas, merged_ranges, sheets
from .shown_number import shown_number

if TYPE_CHECKING:
    from openpyxl.cell.read_only import ReadOnlyCell

Cells = tuple['ReadOnlyCell', ...]
_EXACT = 2**53  # the first float of which the next whole number is no float; not all of a larger one's digits are meant
_DAMAGED = (zipfile.BadZipFile, zlib.error, ParseError, EOFError, LookupError, ValueError, TypeError)


def read_xlsx(path: Path, sheet: str | None = None, note: Note = str) -> Rows:
    """Yield (number of the row in the sheet, row) of the named sheet, or of the first.

    Formulas give the value that the spreadsheet program stored; whole numbers are ints, dates ISO text, percentages and
    amounts the text that is shown. A cell merged over several rows has its value in each of them that holds something
    else. Empty rows and columns without a name are left out; `note` is told of a column without a name that holds
    something, and of a cell that is merged over several columns and has its value in the first of them only.

    Raises:
        DataError: It is no workbook, has no such sheet, the sheet is empty, two columns have one name, or a cell holds
            an error or a formula without a value.
    """
    try:
        chosen = _chosen(path, sheet)
        # A formula without a stored value reads as an empty cell: only the formulas themselves tell the two apart.
        written = _cells(path, chosen, False) if has_formulas(path, chosen) else repeat(())
        yield from _Table(path, chosen, note).rows(_cells(path, chosen, True), written)
    except DataError:
        raise
    except _DAMAGED as error:
        raise fault(path, f'is no .xlsx workbook, or a damaged one ({error}); save it anew as .xlsx') from error


def _chosen(path: Path, title: str | None) -> Sheet:
    found = sheets(path)
    titles = [sheet.title for sheet in found]
    if not titles or title not in (None, *titles):
        raise fault(path, f'has no sheet `{title or ""}`; its sheets are {", ".join(titles) or "charts only"}')
    return found[titles.index(title) if title else 0]


def _cells(path: Path, sheet: Sheet, stored: bool) -> Iterator[Cells]:
    """Yield the rows of cells, with the stored values or the formulas themselves."""
    import openpyxl

    with closing(openpyxl.load_workbook(path, read_only=True, data_only=stored)) as book:
        worksheet = book[sheet.title]
        worksheet.reset_dimensions()  # some programs write a wrong size
        yield from worksheet.iter_rows()


class _Table:
    """The rows of one sheet below the row that names the columns."""

    def __init__(self, path: Path, sheet: Sheet, note: Note) -> None:
        self.path, self.title, self.note = path, sheet.title, note
        self.names: list[str] = []
        self.merged = merged_ranges(path, sheet)
        self._open: list[tuple[Merged, Any]] = []  # merged cells that reach into the next rows, and their values

    def rows(self, stored: Iterator[Cells], written: Iterator[Cells]) -> Rows:
        """Yield (number, row)."""
        for number, (cells, formulas) in enumerate(zip(stored, written, strict=False), 1):
            values = self._values(cells, formulas)
            if not self.names:
                self._name_columns(number, values)
                continue
            row = {name: value for name, value in zip(self.names, values, strict=False) if name.strip()}
            self._note_unnamed(values)
            if any(value not in (None, '') for value in row.values()):  # else there is no row but merged cells
                self._fill(number, row)
                yield number, row
        if not self.names:
            raise fault(self.path, f'has an empty sheet `{self.title}`; its first row must name the columns')

    def _values(self, cells: Cells, formulas: Cells) -> list:
        values = [None] * max(len(cells), len(self.names))
        for index, cell in enumerate(cells):
            if self.names and not self._name(index):
                values[index] = cell.value  # not read, so it may be an error or a formula without a value
                continue
            if cell.value is None and formulas:
                _check_stored(self.path, self.title, cell, formulas[index])
            values[index] = _value(self.path, self.title, cell)
        return values

    def _name(self, index: int) -> str:
        return self.names[index].strip() if index < len(self.names) else ''

    def _name_columns(self, number: int, values: list) -> None:
        if all(value in (None, '') for value in values):
            return
        self.names = ['' if value is None else str(value) for value in values]
        check_names(self.path, self.names, f'sheet `{self.title}`')
        self.merged = [one for one in self.merged if one.first_row > number and self._name(one.first_column)]
        for one in self.merged:
            columns = [f'`{self.names[i]}`' for i in range(one.first_column, one.last_column + 1) if self._name(i)]
            if len(columns) > 1:
                where = f'in sheet `{self.title}` of {self.path}, row {one.first_row}, a cell is merged over them'
                self.note(f'{", ".join(columns[1:])}: {where} and {columns[0]}, which alone has its value')

    def _note_unnamed(self, values: list) -> None:
        for index, value in enumerate(values):
            if value not in (None, '') and not self._name(index):
                place = f'sheet `{self.title}` of {self.path}'
                self.note(f'column `{column_letters(index)}` of {place}: it has no name in the first row')

    def _fill(self, number: int, row: dict) -> None:
        """Put the value of a merged cell into each of its rows."""
        self._open = [pair for pair in self._open if pair[0].last_row >= number]
        for one, value in self._open:
            row[self.names[one.first_column]] = value
        while self.merged and self.merged[0].first_row <= number:
            one = self.merged.pop(0)
            if one.first_row == number < one.last_row:
                self._open.append((one, row[self.names[one.first_column]]))


def _check_stored(path: Path, title: str, cell: 'ReadOnlyCell', written: 'ReadOnlyCell') -> None:
    # A formula that gave an empty text is stored as text (`str`) without one.
    if written.data_type == 'f' and cell.data_type == 'n':
        what = 'this formula has no stored value; open and save the file in a spreadsheet program, or paste the values'
        raise fault(path, what, f'sheet `{title}`, cell {written.coordinate}')


def _value(path: Path, title: str, cell: 'ReadOnlyCell') -> Any:
    value = cell.value
    if isinstance(value, str):
        if cell.data_type == 'e':
            what = f'this cell holds the error {value}; correct or empty it'
            raise fault(path, what, f'sheet `{title}`, cell {cell.coordinate}')
        return value.replace('_x000D_', '\r')  # so the format writes a carriage return
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        shown = shown_number(value, cell.number_format)
        if shown is not None:
            return shown
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    return _duration(value) if isinstance(value, datetime.timedelta) else value


def _duration(value: datetime.timedelta) -> str:
    """Return hours, minutes and seconds, as the format `[h]:mm:ss` shows them; hours are not counted as days."""
    seconds = round(abs(value).total_seconds())
    sign = '-' if value < datetime.timedelta() else ''
    return f'{sign}{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}'
