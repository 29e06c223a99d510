"""Check the first rows of a source before all of them are read, and complete its report afterwards."""

from .encode import Encoder
from .mapper import RowMapper
from .prerendered import ROWS_CHECKED, refuse_prerendered
from .report import Report
from .resolve_map_fn import resolve_row_mapper
from .sources import RowSource
from .wrapped_lines import hard_wrap_hints


def open_source(rows: RowSource, encoder: Encoder) -> RowMapper:
    """Check the first rows of a source, and return its mapper.

    Raises:
        DataError: They fit no map function, or a chat template has already been applied to them.
    """
    head = rows.head(ROWS_CHECKED)
    mapper = resolve_row_mapper(rows.source, head[:5], encoder.chat_tokenizer.template.supports_reasoning)
    refuse_prerendered(head, mapper, encoder.chat_tokenizer)
    rows.hints = hard_wrap_hints(rows)
    return mapper


def finish_report(report: Report, rows: RowSource, encoder: Encoder) -> None:
    """Add to `report` what is known about the source besides its rows."""
    report.template = encoder.chat_tokenizer.template.name if rows.source.chat_template else ''
    report.hints = rows.hints
    report.unused.unread = rows.unread
    report.unused.ignore(rows.source.ignore)
