"""Read local files row by row, with the row's number, and say exactly where a file is broken.

Each reader yields (number, row): the line for jsonl, csv, txt and md, the sheet's row for xlsx, for json, parquet and
arrow the position from 1. Files are streamed: a block and one row stand in memory, and of a workbook all texts. Text
formats are also read compressed, as `.jsonl.gz`, `.csv.gz`, ...
"""

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

from .delimited import read_csv
from .json_rows import read_json, read_jsonl
from .opening import MAX_LINE, Note, Rows, check_start, fault, inner_suffix, is_gz, not_utf8
from .parquet import read_arrow, read_parquet
from .text import TEXT_UNITS, read_text
from .xlsx import read_xlsx

__all__ = ['MAX_LINE', 'READERS', 'TEXT_UNITS', 'Note', 'Rows', 'inner_suffix', 'read_file', 'reader_suffix']

READERS: dict[str, Callable[..., Rows]] = {
    '.json': read_json,
    '.jsonl': read_jsonl,
    '.csv': read_csv,
    '.tsv': read_csv,
    '.parquet': read_parquet,
    '.arrow': read_arrow,
    '.xlsx': read_xlsx,
    '.txt': read_text,
    '.md': read_text,
}
_BINARY = ('.parquet', '.arrow', '.xlsx')  # compressed inside already
_NOTING = ('.json', '.csv', '.tsv')  # whose readers say what of a file they do not read


def reader_suffix(path: Path) -> str | None:
    """Return the key of `READERS` for a file's name, for `a.jsonl.gz` that of `.jsonl`; None if it is not read."""
    suffix = inner_suffix(path)
    return suffix if suffix in READERS and not (is_gz(path) and suffix in _BINARY) else None


def read_file(path: Path, sheet: str | None = None, text_unit: str | None = None, note: Note = str) -> Rows:
    """Yield the rows of a local file.

    Args:
        path: The file.
        sheet: The sheet of an .xlsx file; None for the first.
        text_unit: What of a text file is a row, a key of `TEXT_UNITS`; None for what is usual for its type.
        note: Is told of parts of the file that are not read, one sentence each, maybe several times.

    Raises:
        DataError: The file is empty, broken at a named line, not UTF-8, of an unknown format, or has no such sheet.
    """
    suffix = reader_suffix(path)
    if suffix is None:
        raise fault(path, f'is of a type that is not read; known: {", ".join(READERS)}, and text formats with .gz')
    try:
        check_start(path)
        if suffix == '.xlsx':
            yield from read_xlsx(path, sheet, note)
        elif suffix in TEXT_UNITS:
            yield from read_text(path, text_unit or TEXT_UNITS[suffix])
        else:
            yield from READERS[suffix](path, *([note] if suffix in _NOTING else []))
    except UnicodeDecodeError as error:
        raise not_utf8(path) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise fault(path, f'is damaged or cut off ({error}); compress or download it anew') from error
    except OSError as error:
        raise fault(path, f'cannot be read: {error.strerror or error}') from error
