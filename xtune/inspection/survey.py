"""Measure row lengths before `max_length` is applied, and find duplicate samples."""

import sys
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np

from ..config.sections import Source
from ..config.specs import DataSpec
from ..data.encode_rows import CHUNK, encode_rows
from ..data.encoder_factory import EncoderFactory
from ..data.overlong import DROPPED, TRUNCATED
from ..data.report import Report
from ..data.resolve_map_fn import resolve_row_mapper
from ..data.sources import RowSource
from ..data.split import Split
from ..data.training_data import TrainingData
from .statistics import MAX_SAMPLES

ROWS = 10_000  # per source; more could double the time of tokenizing


@dataclass(frozen=True)
class RowLengths:
    """Number of tokens [N] and places of the first rows of a source, before `max_length` is applied."""

    lengths: np.ndarray
    places: list[str]
    max_length: int

    @cached_property
    def first(self) -> str:
        """Place and length of the first row that is too long; '' if none of these rows is."""
        over = np.flatnonzero(self.lengths > self.max_length)
        return f'{self.places[over[0]]} ({self.lengths[over[0]]:,} tokens)' if len(over) else ''


def measure_row_lengths(source: Source, spec: DataSpec, data: TrainingData) -> RowLengths:
    """Tokenize the first rows of `source` and return their lengths."""
    rows = RowSource(source, streaming=spec.data.streaming)
    encoder = EncoderFactory(data.chat_tokenizer, sys.maxsize, 'error', spec.values.train_on).for_source(source)
    mapper = resolve_row_mapper(source, rows.head(5), encoder.chat_tokenizer.template.supports_reasoning)
    iterator, lengths, places = islice(rows, ROWS), [], []
    while chunk := list(islice(iterator, CHUNK)):
        samples, origins, _ = encode_rows(chunk, mapper, encoder)
        lengths += [len(sample.ids) for sample in samples]
        places += [row.place for row in origins]
    return RowLengths(np.array(lengths, np.int64), places, data.max_length)


def measure_long_sources(spec: DataSpec, data: TrainingData) -> list[RowLengths | None]:
    """Return the row lengths of each source; None for a source without rows that are too long."""
    pairs = zip(spec.train, data.train.reports, strict=False)
    return [
        measure_row_lengths(source, spec, data) if any(report.length_changes.values()) else None
        for source, report in pairs
    ]


def num_shortened_rows(report: Report) -> int:
    """Return the number of rows of a source that were truncated or dropped because of `max_length`."""
    return sum(count for note, count in report.length_changes.items() if note.startswith((TRUNCATED, DROPPED)))


@dataclass(frozen=True)
class Duplicates:
    """Duplicates among the first samples.

    Attributes:
        samples: Number of distinct samples, by row and tokens.
        rows: Number of rows they come from.
        repeated: Fraction of samples that equal a sample of another row.
        responses: Number of distinct trained token sequences.
    """

    samples: int
    rows: int
    repeated: float
    responses: int


def find_duplicates(split: Split) -> Duplicates:
    """Compare the first `MAX_SAMPLES` samples; a sample that is used several times is counted once."""
    rows, texts, responses = set(), set(), set()
    for sample in np.unique(split.sequences.ranges[:, 0])[:MAX_SAMPLES].tolist():
        ids, place = split.store.ids(sample), split.store.place(sample)
        text = ids.tobytes()
        rows.add((place, text))  # a stream may read a row again
        texts.add(text)
        responses.add(b''.join(ids[start:stop].tobytes() for start, stop in split.store.spans(sample)))
    return Duplicates(len(rows), len({place for place, _ in rows}), 1 - len(texts) / len(rows), len(responses))
