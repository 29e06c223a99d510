"""From a chunk of rows to samples, with a report on what was skipped, changed or not used."""

from typing import NamedTuple

from ..errors import DataError
from ..messages import Conversation, RowError, Tokens
from .encode import Encoder
from .key_usage import KeyUsage
from .mapper import RowMapper
from .report import Report
from .sample import Sample
from .sources import Row

CHUNK = 500  # rows to encode at a time


class EncodedRows(NamedTuple):
    """Samples, the row of each sample, and the report on the rows."""

    samples: list[Sample]
    rows: list[Row]
    report: Report


def encode_rows(chunk: list[Row], mapper: RowMapper, encoder: Encoder) -> EncodedRows:
    """Map and encode a chunk of rows.

    Raises:
        DataError: A row is too long and `overlong` is 'error'.
    """
    report, samples, rows, usage = Report(rows=len(chunk)), [], [], KeyUsage(mapper)
    encoder.lengths.clear()
    mapped = [_map_row(mapper, row) for row in chunk]
    encoded = enumerate(encoder([result for result in mapped if not isinstance(result, RowError)]))
    for row, conversation in zip(chunk, mapped, strict=True):
        index, result = (None, conversation) if isinstance(conversation, RowError) else next(encoded)
        if isinstance(result, DataError):
            raise DataError(f'{row.place}: {result}') from result
        if isinstance(result, RowError):
            report.add_bad_row(row.place, result)
            continue
        samples += result
        rows += [row] * len(result)
        usage.add(row)
        for remark in encoder.remarks.get(index, ()):
            report.add_remark(remark, row.place)
        for name, example in (*getattr(conversation, 'notes', ()), *encoder.unused.get(index, ())):
            report.unused.count(name, row.place, example)
    usage.add_to(report.unused)
    report.length_changes.update(encoder.lengths.changes)
    report.too_long = encoder.lengths.too_long
    report.samples = len(samples)
    report.tokens = sum(len(s.ids) for s in samples)
    # No token predicts token 0.
    report.trained_tokens = sum(end - max(start, 1) for s in samples for start, end in s.spans)
    return EncodedRows(samples, rows, report)


def _map_row(mapper: RowMapper, row: Row) -> Conversation | Tokens | RowError:
    """Return the conversation or tokens of a row, or the `RowError` that the mapper raised."""
    try:
        return mapper(row.values)
    except RowError as error:
        return error
