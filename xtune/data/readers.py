"""Read local files row by row, with the row's number, and say exactly where a file is broken.

Each reader yields (number, row): the line for jsonl, csv and txt, the position from 1 for the other formats. Files are
streamed where the format allows it: jsonl, csv, parquet, xlsx and txt never stand in memory as a whole.
"""

import csv
import json
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ..errors import DataError

Rows = Iterator[tuple[int, dict[str, Any]]]


def read_file(path: Path, sheet: str | None = None) -> Rows:
    """Yield the rows of a local file.

    Raises:
        DataError: The file is empty, broken at a named line, not UTF-8, of an unknown format, or has no such sheet.
    """
    if path.stat().st_size == 0:
        raise DataError(f'{path} is empty')
    reader = READERS[path.suffix.lower()]
    try:
        yield from reader(path, sheet) if reader is _xlsx else reader(path)
    except UnicodeDecodeError as error:
        raise DataError(f'{path} is not UTF-8 text ({_not_utf8(path)}: {error.reason}); convert it to UTF-8') from error


def _not_utf8(path: Path) -> str:
    with path.open('rb') as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode('utf-8')
            except UnicodeDecodeError as error:
                return f'line {number}, byte {error.start + 1}'
    return 'at its end'


def _jsonl(path: Path) -> Rows:
    with path.open(encoding='utf-8-sig') as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, _object(_parse(line, path, number), path, f'line {number}')


def _json(path: Path) -> Rows:
    with path.open(encoding='utf-8-sig') as file:
        text = file.read()
    first, _, rest = text.strip().partition('\n')
    if first.startswith('{') and rest and _is_json(first):
        yield from _jsonl(path)  # one object a line, whatever the file is called
        return
    value = _parse(text, path)
    if isinstance(value, dict):
        lists = [key for key in value if isinstance(value[key], list)]
        if len(lists) != 1:
            raise DataError(f'{path} holds one object, not a list of rows; put the rows into [ ... ]')
        value = value[lists[0]]
    if not isinstance(value, list):
        raise DataError(f'{path} holds a {type(value).__name__}, not a list of rows')
    for number, row in enumerate(value, 1):
        yield number, _object(row, path, f'row {number}')


def _parse(text: str, path: Path, line: int | None = None) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        number = line or error.lineno
        bad = text if line else text.split('\n')[error.lineno - 1]
        start = max(0, error.colno - 30)
        near = bad[start : error.colno + 30].strip()
        raise DataError(f'{path}, line {number}: broken JSON: {error.msg} at column {error.colno}: {near}') from error


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


def _object(row: Any, path: Path, where: str) -> dict:
    if not isinstance(row, dict):
        raise DataError(f'{path}, {where}: a row must be an object with named columns, got {str(row)[:60]!r}')
    return row


def _csv(path: Path) -> Rows:
    csv.field_size_limit(1 << 30)
    with path.open(encoding='utf-8-sig', newline='') as file:
        reader = csv.DictReader(file, delimiter='\t' if path.suffix.lower() == '.tsv' else ',')
        for row in reader:
            if None in row or None in row.values():
                wanted = len(reader.fieldnames or ())
                raise DataError(f'{path}, line {reader.line_num}: this row has not the {wanted} columns of the header')
            yield reader.line_num, row


def _parquet(path: Path) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise DataError(f'{path} is no Parquet file: {error}') from error
    number = 0
    for batch in file.iter_batches(batch_size=1000):
        for row in batch.to_pylist():
            number += 1
            yield number, row


def _xlsx(path: Path, sheet: str | None) -> Rows:
    from zipfile import BadZipFile

    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (BadZipFile, InvalidFileException, KeyError) as error:
        raise DataError(f'{path} is no .xlsx workbook: {error}') from error
    if sheet is not None and sheet not in book.sheetnames:
        raise DataError(f'{path} has no sheet `{sheet}`; its sheets are {", ".join(book.sheetnames)}')
    worksheet = book[sheet or book.sheetnames[0]]
    worksheet.reset_dimensions()
    rows = worksheet.iter_rows(values_only=True)
    header = next(rows, None)
    if not header or all(name is None for name in header):
        raise DataError(
            f'{path}: the sheet `{sheet or book.sheetnames[0]}` is empty; its first row must name the columns'
        )
    for number, values in enumerate(rows, 2):  # 2: as the spreadsheet program counts, below the header
        if any(value is not None for value in values):
            yield number, {str(n): v for n, v in zip_longest(header, values) if n is not None}
    book.close()


def _txt(path: Path) -> Rows:
    with path.open(encoding='utf-8-sig') as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, {'text': line.rstrip('\n')}


READERS = {
    '.json': _json,
    '.jsonl': _jsonl,
    '.csv': _csv,
    '.tsv': _csv,
    '.parquet': _parquet,
    '.xlsx': _xlsx,
    '.txt': _txt,
}
