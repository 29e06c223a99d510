"""Read local files row by row; errors name the exact place of a fault.

Each reader yields (number, row). The number is the line for jsonl, csv, txt and md, the row of the sheet for xlsx, and
the position from 1 for json, parquet and arrow. Files are streamed: one block and one row are in memory, and all texts
of a workbook. Text formats may be compressed: `.jsonl.gz`, `.csv.gz`, ...
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
_BINARY = ('.parquet', '.arrow', '.xlsx')  # already compressed inside
_WITH_NOTES = ('.json', '.csv', '.tsv')  # their readers report the parts of a file that they skip


def reader_suffix(path: Path) -> str | None:
    """Return the key of `READERS` for a file name (`.jsonl` for `a.jsonl.gz`), None if the format is not supported."""
    suffix = inner_suffix(path)
    return suffix if suffix in READERS and not (is_gz(path) and suffix in _BINARY) else None


def read_file(path: Path, sheet: str | None = None, text_unit: str | None = None, note: Note = str) -> Rows:
    """Yield the rows of a local file.

    Args:
        path: The file.
        sheet: The sheet of an .xlsx file; None for the first.
        text_unit: The part of a text file that is one row: 'line', 'paragraph' or 'file'; None for the default of the
            file type.
        note: Called with one sentence for each part of the file that is skipped, possibly several times.

    Raises:
        DataError: The file is empty, broken at a named line, not UTF-8, of an unknown format, or has no such sheet.
    """
    suffix = reader_suffix(path)
    if suffix is None:
        raise fault(path, f'has an unsupported type; supported: {", ".join(READERS)}, and text formats with .gz')
    try:
        check_start(path)
        if suffix == '.xlsx':
            yield from read_xlsx(path, sheet, note)
        elif suffix in TEXT_UNITS:
            yield from read_text(path, text_unit or TEXT_UNITS[suffix])
        else:
            yield from READERS[suffix](path, *([note] if suffix in _WITH_NOTES else []))
    except UnicodeDecodeError as error:
        raise not_utf8(path) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise fault(path, f'is damaged or truncated ({error}); compress or download it again') from error
    except OSError as error:
        raise fault(path, f'cannot be read: {error.strerror or error}') from error
