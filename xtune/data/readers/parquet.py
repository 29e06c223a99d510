"""Rows of .parquet and .arrow files, read in batches. Binary columns stay bytes; map functions refuse them as text."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import DataError
from .delimited import check_column_names
from .nested import to_rows
from .opening import Rows, fault

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 1000  # rows


def read_parquet(path: Path) -> Rows:
    """Yield (position from 1, row).

    Raises:
        DataError: It is not a Parquet file, it is damaged, or two columns have the same name.
    """
    import pyarrow.parquet as pq

    def batches() -> Iterator['pa.RecordBatch']:
        with pq.ParquetFile(path) as file:
            check_column_names(path, file.schema_arrow.names)
            yield from file.iter_batches(batch_size=BATCH)

    return _rows(path, batches(), 'Parquet')


def read_arrow(path: Path) -> Rows:
    """Yield (position from 1, row) of an Arrow file or stream, the storage format of `datasets`.

    Raises:
        DataError: It is not an Arrow file, it is damaged, or two columns have the same name.
    """
    import pyarrow as pa

    def batches() -> Iterator['pa.RecordBatch']:
        with pa.memory_map(str(path)) as file:
            if file.read(6) == b'ARROW1':
                reader = pa.ipc.open_file(file)
                stored_batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
            else:
                file.seek(0)
                stored_batches = reader = pa.ipc.open_stream(file)
            check_column_names(path, reader.schema.names)
            for batch in stored_batches:
                for start in range(0, batch.num_rows, BATCH):
                    yield batch.slice(start, BATCH)

    return _rows(path, batches(), 'Arrow')


def _rows(path: Path, batches: Iterator['pa.RecordBatch'], file_type: str) -> Rows:
    import pyarrow as pa

    number = 0
    try:
        for batch in batches:
            try:
                rows = to_rows(batch)
            except UnicodeDecodeError as error:
                raise _not_text(path, batch, number) from error
            yield from enumerate(rows, number + 1)
            number += len(rows)
    except (pa.ArrowException, OSError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')
        what = f'is damaged after row {number}' if number else f'is not a valid {file_type} file'
        raise fault(path, f'{what} ({first}); write or download it again') from error


def _not_text(path: Path, batch: 'pa.RecordBatch', before: int) -> DataError:
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        for number, cell in enumerate(column, before + 1):
            try:
                cell.as_py()
            except UnicodeDecodeError as error:
                what = f'column `{name}` is not UTF-8 text ({error.reason}); write the file again from UTF-8'
                return fault(path, what, f'row {number}')
    return fault(path, 'a text is not UTF-8; write the file again from UTF-8', f'rows from {before + 1} on')
