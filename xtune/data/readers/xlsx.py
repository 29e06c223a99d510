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
from .delimited import check_column_names
from .opening import Note, Rows, fault
from .sheets import MergedRange, Sheet, column_letters, has_formulas, merged_ranges, sheets
from .shown_number import shown_number

if TYPE_CHECKING:
    from openpyxl.cell.read_only import ReadOnlyCell

Cells = tuple['ReadOnlyCell', ...]
_EXACT = 2**53  # floats below it represent every integer exactly
_DAMAGED = (zipfile.BadZipFile, zlib.error, ParseError, EOFError, LookupError, ValueError, TypeError)


def read_xlsx(path: Path, sheet: str | None = None, note: Note = str) -> Rows:
    """Yield (row number in the sheet, row) of the named sheet, or of the first sheet.

    A formula has the value that the spreadsheet program stored. Integers are ints, dates are ISO text, percentages and
    amounts are the text that is shown. A cell merged over several rows has its value in each of these rows, unless the
    rest of the row is empty. Empty rows and columns without a name are left out. `note` is called for a column without
    a name that has values, and for a cell merged over several columns, whose value is in the first of them only.

    Raises:
        DataError: It is not a workbook, has no such sheet, the sheet is empty, two columns have the same name, or a
            cell contains an error or a formula without a stored value.
    """
    try:
        worksheet = _find_sheet(path, sheet)
        # A formula without a stored value reads as an empty cell; only the formulas themselves distinguish the two.
        formulas = _cells(path, worksheet, False) if has_formulas(path, worksheet) else repeat(())
        yield from _Table(path, worksheet, note).rows(_cells(path, worksheet, True), formulas)
    except DataError:
        raise
    except _DAMAGED as error:
        raise fault(path, f'is not a valid .xlsx workbook ({error}); save it again as .xlsx') from error


def _find_sheet(path: Path, title: str | None) -> Sheet:
    worksheets = sheets(path)
    titles = [sheet.title for sheet in worksheets]
    if not titles or title not in (None, *titles):
        raise fault(path, f'has no sheet `{title or ""}`; its sheets are {", ".join(titles) or "charts only"}')
    return worksheets[titles.index(title) if title else 0]


def _cells(path: Path, sheet: Sheet, stored_values: bool) -> Iterator[Cells]:
    """Yield the rows of cells, with their stored values or with the formulas."""
    import openpyxl

    with closing(openpyxl.load_workbook(path, read_only=True, data_only=stored_values)) as book:
        worksheet = book[sheet.title]
        worksheet.reset_dimensions()  # some programs write wrong dimensions
        yield from worksheet.iter_rows()


class _Table:
    """The rows of one sheet below the row that names the columns."""

    def __init__(self, path: Path, sheet: Sheet, note: Note) -> None:
        self.path, self.title, self.note = path, sheet.title, note
        self.names: list[str] = []
        self.merged = merged_ranges(path, sheet)
        self._open: list[tuple[MergedRange, Any]] = []  # merged cells that extend to the next rows, and their values

    def rows(self, value_rows: Iterator[Cells], formula_rows: Iterator[Cells]) -> Rows:
        """Yield (number, row)."""
        for number, (cells, formulas) in enumerate(zip(value_rows, formula_rows, strict=False), 1):
            values = self._values(cells, formulas)
            if not self.names:
                self._name_columns(number, values)
                continue
            row = {name: value for name, value in zip(self.names, values, strict=False) if name.strip()}
            self._note_unnamed(values)
            if any(value not in (None, '') for value in row.values()):  # otherwise the row has merged cells only
                self._fill(number, row)
                yield number, row
        if not self.names:
            raise fault(self.path, f'has an empty sheet `{self.title}`; its first row must contain the column names')

    def _values(self, cells: Cells, formulas: Cells) -> list:
        values = [None] * max(len(cells), len(self.names))
        for index, cell in enumerate(cells):
            if self.names and not self._name(index):
                values[index] = cell.value  # skipped column: errors and formulas without a value are allowed
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
        check_column_names(self.path, self.names, f'sheet `{self.title}`')
        self.merged = [m for m in self.merged if m.first_row > number and self._name(m.first_column)]
        for merged in self.merged:
            indices = range(merged.first_column, merged.last_column + 1)
            columns = [f'`{self.names[i]}`' for i in indices if self._name(i)]
            if len(columns) > 1:
                where = f'in sheet `{self.title}` of {self.path}, row {merged.first_row}, a cell is merged over them'
                self.note(f'{", ".join(columns[1:])}: {where} and {columns[0]}; only {columns[0]} gets its value')

    def _note_unnamed(self, values: list) -> None:
        for index, value in enumerate(values):
            if value not in (None, '') and not self._name(index):
                place = f'sheet `{self.title}` of {self.path}'
                self.note(f'column `{column_letters(index)}` of {place}: it has no name in the first row')

    def _fill(self, number: int, row: dict) -> None:
        """Put the value of a merged cell into each of its rows."""
        self._open = [(merged, value) for merged, value in self._open if merged.last_row >= number]
        for merged, value in self._open:
            row[self.names[merged.first_column]] = value
        while self.merged and self.merged[0].first_row <= number:
            merged = self.merged.pop(0)
            if merged.first_row == number < merged.last_row:
                self._open.append((merged, row[self.names[merged.first_column]]))


def _check_stored(path: Path, title: str, cell: 'ReadOnlyCell', formula: 'ReadOnlyCell') -> None:
    # A formula whose value is an empty text is stored with the type text (`str`) and without a value.
    if formula.data_type == 'f' and cell.data_type == 'n':
        what = 'this formula has no stored value; open and save the file in a spreadsheet program, or paste the values'
        raise fault(path, what, f'sheet `{title}`, cell {formula.coordinate}')


def _value(path: Path, title: str, cell: 'ReadOnlyCell') -> Any:
    value = cell.value
    if isinstance(value, str):
        if cell.data_type == 'e':
            what = f'this cell contains the error {value}; correct or clear it'
            raise fault(path, what, f'sheet `{title}`, cell {cell.coordinate}')
        return value.replace('_x000D_', '\r')  # the format's escape for a carriage return
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
    """Return hours, minutes and seconds as in the format `[h]:mm:ss`; 24 hours or more are not converted to days."""
    seconds = round(abs(value).total_seconds())
    sign = '-' if value < datetime.timedelta() else ''
    return f'{sign}{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}'
