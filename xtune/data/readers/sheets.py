"""The parts of an .xlsx file that openpyxl does not show while it streams rows: sheets by name, and merged cells."""

import posixpath
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import ParseError, fromstring

from .opening import BLOCK

_VALUE = re.compile(rb'<(\w+:)?(v|is)[ />]')
_FORMULA = re.compile(rb'<(\w+:)?f[ />]')
_MERGED = re.compile(rb'<(?:\w+:)?mergeCell [^>]*ref="\$?([A-Z]+)\$?(\d+):\$?([A-Z]+)\$?(\d+)"')
_OVERLAP = 256  # bytes; longer than what the expressions above match
UNREADABLE = (zipfile.BadZipFile, ParseError, OSError, LookupError, ValueError)


@dataclass(frozen=True)
class Sheet:
    """A worksheet: its name, and its part of the archive."""

    title: str
    part: str


@dataclass(frozen=True)
class Merged:
    """A merged range: columns count from 0, rows from 1, the last ones included."""

    first_column: int
    first_row: int
    last_column: int
    last_row: int


def sheets(path: Path) -> list[Sheet]:
    """Return the worksheets in their order; charts on a sheet of their own are none.

    Raises:
        One of `UNREADABLE`: It is no workbook, or a damaged one.
    """
    with zipfile.ZipFile(path) as book:
        parts = {}
        for one in fromstring(book.read('xl/_rels/workbook.xml.rels')):
            if one.attrib['Type'].endswith('/worksheet'):
                target = one.attrib['Target']
                parts[one.attrib['Id']] = target.lstrip('/') if target[0] == '/' else posixpath.normpath(f'xl/{target}')
        found = [one.attrib for one in fromstring(book.read('xl/workbook.xml')).iter() if one.tag.endswith('}sheet')]
    named = [(next(v for k, v in one.items() if k.endswith('}id')), one['name']) for one in found]
    return [Sheet(name, parts[key]) for key, name in named if key in parts]


def has_values(path: Path, sheet: Sheet) -> bool:
    """Tell whether a cell of the sheet holds something."""
    return any(_VALUE.search(block) for block in _blocks(path, sheet))


def has_formulas(path: Path, sheet: Sheet) -> bool:
    """Tell whether a cell of the sheet holds a formula."""
    return any(_FORMULA.search(block) for block in _blocks(path, sheet))


def merged_ranges(path: Path, sheet: Sheet) -> list[Merged]:
    """Return the merged ranges of the sheet."""
    found = {match.groups() for block in _blocks(path, sheet) for match in _MERGED.finditer(block)}
    return sorted(
        (Merged(_index(left), int(top), _index(right), int(bottom)) for left, top, right, bottom in found),
        key=lambda one: (one.first_row, one.first_column),
    )


def column_letters(index: int) -> str:
    """Return the name of column `index`, counted from 0, as a spreadsheet shows it."""
    letters = ''
    while index >= 0:
        letters, index = chr(65 + index % 26) + letters, index // 26 - 1
    return letters


def _index(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - 64
    return number - 1


def _blocks(path: Path, sheet: Sheet) -> Iterator[bytes]:
    """Yield the XML of a sheet in blocks that overlap."""
    with zipfile.ZipFile(path) as book, book.open(sheet.part) as file:
        end = b''
        while block := file.read(BLOCK):
            yield end + block
            end = block[-_OVERLAP:]
