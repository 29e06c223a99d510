"""Read local files row by row, with the row's number, and say exactly where a file is broken.

Each reader yields (number, row): the line for jsonl, csv and txt, the sheet's row for xlsx, for json and parquet the
position from 1. Files are streamed: a block and one row stand in memory, and of a workbook all texts. Text formats are
also read compressed, as `.jsonl.gz`, `.csv.gz`, ...
"""

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

from .delimited import read_csv
from .json_rows import read_json, read_jsonl
from .opening import MAX_LINE, Rows, check_start, fault, inner_suffix, is_gz, lines, not_utf8, open_text
from .parquet import read_parquet
from .xlsx import read_xlsx

__all__ = ['MAX_LINE', 'READERS', 'Rows', 'read_file', 'reader_suffix']


def read_txt(path: Path) -> Rows:
    """Yield (line, `{'text': line}`) for each line that is not blank."""
    with open_text(path) as file:
        for number, line in lines(file, path):
            if not line.isspace():
                yield number, {'text': line.rstrip('\n')}


READERS: dict[str, Callable[..., Rows]] = {
    '.json': read_json,
    '.jsonl': read_jsonl,
    '.csv': read_csv,
    '.tsv': read_csv,
    '.parquet': read_parquet,
    '.xlsx': read_xlsx,
    '.txt': read_txt,
}
_BINARY = ('.parquet', '.xlsx')  # compressed inside already


def reader_suffix(path: Path) -> str | None:
    """Return the key of `READERS` for a file's name, for `a.jsonl.gz` that of `.jsonl`; None if it is not read."""
    suffix = inner_suffix(path)
    return suffix if suffix in READERS and not (is_gz(path) and suffix in _BINARY) else None


def read_file(path: Path, sheet: str | None = None) -> Rows:
    """Yield the rows of a local file; `sheet` is for .xlsx.

    Raises:
        DataError: The file is empty, broken at a named line, not UTF-8, of an unknown format, or has no such sheet.
    """
    suffix = reader_suffix(path)
    if suffix is None:
        raise fault(path, f'is of a type that is not read; known: {", ".join(READERS)}, and text formats with .gz')
    try:
        check_start(path)
        yield from read_xlsx(path, sheet) if suffix == '.xlsx' else READERS[suffix](path)
    except UnicodeDecodeError as error:
        raise not_utf8(path) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise fault(path, f'is damaged or cut off ({error}); compress or download it anew') from error
    except OSError as error:
        raise fault(path, f'cannot be read: {error.strerror or error}') from error
