"""Read from an .xlsx file what openpyxl does not provide while it streams rows: sheet names and merged cells."""

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
_OVERLAP = 256  # bytes; longer than any match of the expressions above
UNREADABLE = (zipfile.BadZipFile, ParseError, OSError, LookupError, ValueError)


@dataclass(frozen=True)
class Sheet:
    """A worksheet: its name and its file in the archive."""

    title: str
    part: str


@dataclass(frozen=True)
class MergedRange:
    """A merged range: columns counted from 0, rows from 1, the last ones included."""

    first_column: int
    first_row: int
    last_column: int
    last_row: int


def sheets(path: Path) -> list[Sheet]:
    """Return the worksheets in their order, without chart sheets.

    Raises:
        One of `UNREADABLE`: It is not a workbook, or it is damaged.
    """
    with zipfile.ZipFile(path) as book:
        parts = {}
        for relation in fromstring(book.read('xl/_rels/workbook.xml.rels')):
            if relation.attrib['Type'].endswith('/worksheet'):
                target = relation.attrib['Target']
                part = target.lstrip('/') if target[0] == '/' else posixpath.normpath(f'xl/{target}')
                parts[relation.attrib['Id']] = part
        elements = fromstring(book.read('xl/workbook.xml')).iter()
        attributes = [element.attrib for element in elements if element.tag.endswith('}sheet')]
    names = [(next(v for k, v in sheet.items() if k.endswith('}id')), sheet['name']) for sheet in attributes]
    return [Sheet(name, parts[key]) for key, name in names if key in parts]


def has_values(path: Path, sheet: Sheet) -> bool:
    """Return whether any cell of the sheet has a value."""
    return any(_VALUE.search(block) for block in _blocks(path, sheet))


def has_formulas(path: Path, sheet: Sheet) -> bool:
    """Return whether any cell of the sheet has a formula."""
    return any(_FORMULA.search(block) for block in _blocks(path, sheet))


def merged_ranges(path: Path, sheet: Sheet) -> list[MergedRange]:
    """Return the merged ranges of the sheet."""
    ranges = {match.groups() for block in _blocks(path, sheet) for match in _MERGED.finditer(block)}
    return sorted(
        (MergedRange(_index(left), int(top), _index(right), int(bottom)) for left, top, right, bottom in ranges),
        key=lambda merged: (merged.first_row, merged.first_column),
    )


def column_letters(index: int) -> str:
    """Return the letters of column `index`, counted from 0, as a spreadsheet shows them."""
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
    """Yield the XML of a sheet in overlapping blocks."""
    with zipfile.ZipFile(path) as book, book.open(sheet.part) as file:
        overlap = b''
        while block := file.read(BLOCK):
            yield overlap + block
            overlap = block[-_OVERLAP:]
