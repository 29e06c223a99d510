"""Rows of .parquet files, read in batches."""

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import DataError
from .delimited import check_names
from .nested import to_rows
from .opening import Rows, fault

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH = 1000  # rows


def read_parquet(path: Path) -> Rows:
    """Yield (position from 1, row).

    Raises:
        DataError: It is no Parquet file or a damaged one, two columns have one name, or a column holds bytes.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            check_names(path, file.schema_arrow.names)
            _check_no_bytes(path, file)
            for batch in file.iter_batches(batch_size=BATCH):
                try:
                    rows = to_rows(batch)
                except UnicodeDecodeError as error:
                    raise _not_text(path, batch, number) from error
                yield from enumerate(rows, number + 1)
                number += len(rows)
    except (pa.ArrowException, OSError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')
        what = f'is damaged after row {number}' if number else 'is no Parquet file, or a damaged one'
        raise fault(path, f'{what} ({first}); write or download it anew') from error


def _check_no_bytes(path: Path, file: 'pq.ParquetFile') -> None:
    for index in range(len(file.schema)):
        leaf = file.schema.column(index)
        if leaf.physical_type in ('BYTE_ARRAY', 'FIXED_LEN_BYTE_ARRAY') and leaf.logical_type.type == 'NONE':
            raise fault(
                path, f'holds bytes, not text, in the column `{leaf.path}`; leave it out, or write it as strings'
            )


def _not_text(path: Path, batch: 'pa.RecordBatch', before: int) -> DataError:
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        for number, cell in enumerate(column, before + 1):
            try:
                cell.as_py()
            except UnicodeDecodeError as error:
                what = f'the column `{name}` is not UTF-8 text ({error.reason}); write the file anew from UTF-8'
                return fault(path, what, f'row {number}')
    return fault(path, 'a text is not UTF-8; write the file anew from UTF-8', f'rows from {before + 1} on')
