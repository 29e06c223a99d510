"""Lengths of rows before truncation, which the tokenized samples no longer show."""

import sys
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np

from ..config.sections import Source
from ..data.encode_rows import CHUNK, encode_rows
from ..data.encoder_factory import EncoderFactory
from ..data.overlong import DROPPED, TRUNCATED
from ..data.report import Report
from ..data.resolve_map_fn import resolve_row_mapper
from ..data.sources import RowSource
from ..data.training_data import TrainingData

MAX_ROWS = 10_000  # per source; more could double the time that tokenizing took


@dataclass(frozen=True)
class RowLengths:
    """Lengths of the first rows of a source before `max_length` is applied.

    Attributes:
        lengths: Tokens of each sample [N].
        places: File and row number of each sample.
        max_length: Tokens per sequence of the run.
    """

    lengths: np.ndarray
    places: list[str]
    max_length: int

    @cached_property
    def first_too_long(self) -> str:
        """Place and length of the first row that is too long; empty if it is not among the first rows."""
        too_long = np.flatnonzero(self.lengths > self.max_length)
        return f'{self.places[too_long[0]]} ({self.lengths[too_long[0]]:,} tokens)' if len(too_long) else ''


def row_lengths(source: Source, data: TrainingData, train_on: str, streaming: bool) -> RowLengths:
    """Return the lengths of the first rows of `source`, which are tokenized again without a limit."""
    rows = RowSource(source, streaming=streaming)
    encoder = EncoderFactory(data.chat_tokenizer, sys.maxsize, 'error', train_on).for_source(source)
    mapper = resolve_row_mapper(source, rows.head(5), encoder.chat_tokenizer.template.takes_thoughts)
    iterator, lengths, places = islice(rows, MAX_ROWS), [], []
    while chunk := list(islice(iterator, CHUNK)):
        encoded = encode_rows(chunk, mapper, encoder)
        lengths += [len(sample.ids) for sample in encoded.samples]
        places += [row.place for row in encoded.rows]
    return RowLengths(np.array(lengths, np.int64), places, data.max_length)


def lengths_by_source(
    sources: tuple[Source, ...], data: TrainingData, train_on: str, streaming: bool
) -> list[RowLengths | None]:
    """Return the row lengths of each training source; None if none of its rows is too long."""
    pairs = zip(sources, data.train.reports, strict=False)
    return [
        row_lengths(source, data, train_on, streaming) if any(report.length_changes.values()) else None
        for source, report in pairs
    ]


def shortened_rows(report: Report) -> int:
    """Return how many rows of a source are truncated or dropped because of `max_length`."""
    changes = report.length_changes.items()
    return sum(count for change, count in changes if change.startswith((TRUNCATED, DROPPED)))
