"""Rows of .xlsx workbooks: the first row that is not empty names the columns."""

import datetime
import re
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
from .opening import BLOCK, Rows, fault

if TYPE_CHECKING:
    from openpyxl import Workbook
    from openpyxl.cell.read_only import ReadOnlyCell

Cells = tuple['ReadOnlyCell', ...]
_FORMULA = re.compile(rb'<(\w+:)?f[ />]')
_EXACT = 2**53  # the first float of which the next whole number is no float; not all of a larger one's digits are meant
_DAMAGED = (zipfile.BadZipFile, zlib.error, ParseError, EOFError, LookupError, ValueError, TypeError)


def read_xlsx(path: Path, sheet: str | None = None) -> Rows:
    """Yield (number of the row in the sheet, row) of the named sheet, or of the first.

    Formulas give the value that the spreadsheet program stored; whole numbers are ints, dates ISO text. Columns without
    a name and empty rows are left out; of merged cells only the first has the value.

    Raises:
        DataError: It is no workbook, has no such sheet, the sheet is empty, two columns have one name, or a cell holds
            an error or a formula without a value.
    """
    import openpyxl

    try:
        with closing(openpyxl.load_workbook(path, read_only=True, data_only=True)) as book:
            title = _title(path, book, sheet)
            # A formula without a stored value reads as an empty cell: only the formulas themselves tell the two apart.
            written = _formulas(path, title) if _has_formulas(path) else repeat(())
            yield from _rows(path, title, _cells(book, title), written)
    except DataError:
        raise
    except _DAMAGED as error:
        raise fault(path, f'is no .xlsx workbook, or a damaged one ({error}); save it anew as .xlsx') from error


def _title(path: Path, book: 'Workbook', sheet: str | None) -> str:
    titles = [worksheet.title for worksheet in book.worksheets]
    if not titles or sheet not in (None, *titles):
        raise fault(path, f'has no sheet `{sheet or ""}`; its sheets are {", ".join(titles) or "charts only"}')
    return sheet or titles[0]


def _cells(book: 'Workbook', title: str) -> Iterator[Cells]:
    worksheet = book[title]
    worksheet.reset_dimensions()  # some programs write a wrong size
    return worksheet.iter_rows()


def _formulas(path: Path, title: str) -> Iterator[Cells]:
    import openpyxl

    with closing(openpyxl.load_workbook(path, read_only=True)) as book:
        yield from _cells(book, title)


def _has_formulas(path: Path) -> bool:
    with zipfile.ZipFile(path) as book:
        for name in book.namelist():
            if not (name.startswith('xl/worksheets/') and name.endswith('.xml')):
                continue
            with book.open(name) as file:
                end = b''
                while block := file.read(BLOCK):
                    if _FORMULA.search(end + block):
                        return True
                    end = block[-16:]
    return False


def _rows(path: Path, title: str, stored: Iterator[Cells], written: Iterator[Cells]) -> Rows:
    names: list[str] | None = None
    for number, (cells, formulas) in enumerate(zip(stored, written, strict=False), 1):
        columns = range(len(cells)) if names is None else [i for i, n in enumerate(names[: len(cells)]) if n.strip()]
        values = dict.fromkeys(columns)
        for index in columns:
            if cells[index].value is None and formulas:
                _check_stored(path, title, cells[index], formulas[index])
            values[index] = _value(path, title, cells[index])
        if all(value in (None, '') for value in values.values()):
            continue
        if names is None:
            names = ['' if value is None else str(value) for value in values.values()]
            check_names(path, names, f'sheet `{title}`')
        else:
            yield number, {name: values.get(index) for index, name in enumerate(names) if name.strip()}
    if names is None:
        raise fault(path, f'has an empty sheet `{title}`; its first row must name the columns')


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
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    return str(value) if isinstance(value, datetime.timedelta) else value
