"""What the tokenised samples no longer tell: how long rows were before `max_length`; and which samples are alike."""

import sys
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np

from ..config.sections import Source
from ..config.wire import Job
from ..data.encode_rows import CHUNK, encode_rows
from ..data.encoder_factory import EncoderFactory
from ..data.overlong import DROPPED, TRUNCATED
from ..data.report import Report
from ..data.resolve_map_fn import resolve_row_mapper
from ..data.sources import RowSource
from ..data.split import Split
from ..data.training_data import TrainingData
from .statistics import LOOK

ROWS = 10_000  # of each source; more could double the time that tokenising took


@dataclass(frozen=True)
class Uncut:
    """The first rows of a source as they were before `max_length`: their tokens [N] and places."""

    lengths: np.ndarray
    places: list[str]
    max_length: int

    @cached_property
    def first(self) -> str:
        """Place and length of the first row that is too long; empty if it comes later."""
        over = np.flatnonzero(self.lengths > self.max_length)
        return f'{self.places[over[0]]} ({self.lengths[over[0]]:,} tokens)' if len(over) else ''


def uncut(source: Source, job: Job, data: TrainingData) -> Uncut:
    """Return the lengths of the first rows of `source`."""
    rows = RowSource(source, streaming=job.data.streaming)
    encoder = EncoderFactory(data.chat_tokenizer, sys.maxsize, 'error', job.values.train_on).for_source(source)
    mapper = resolve_row_mapper(source, rows.head(5), encoder.chat_tokenizer.template.supports_reasoning)
    iterator, lengths, places = islice(rows, ROWS), [], []
    while chunk := list(islice(iterator, CHUNK)):
        samples, origins, _ = encode_rows(chunk, mapper, encoder)
        lengths += [len(sample.ids) for sample in samples]
        places += [row.place for row in origins]
    return Uncut(np.array(lengths, np.int64), places, data.max_length)


def surveyed(job: Job, data: TrainingData) -> list[Uncut | None]:
    """Return for each source how long its rows were, if any was too long."""
    pairs = zip(job.train_sources, data.train.reports, strict=False)
    return [uncut(source, job, data) if any(report.length_changes.values()) else None for source, report in pairs]


def shortened_rows(report: Report) -> int:
    """Return how many rows of a source lost something to `max_length`."""
    return sum(count for note, count in report.length_changes.items() if note.startswith((TRUNCATED, DROPPED)))


@dataclass(frozen=True)
class Likeness:
    """Of the samples looked at: rows they come from, share of samples that repeat another row's, different replies."""

    samples: int
    rows: int
    repeated: float
    replies: int


def likeness(split: Split) -> Likeness:
    """Compare the first `LOOK` samples, each once however often it is used."""
    rows, texts, replies = set(), set(), set()
    for sample in np.unique(split.sequences.ranges[:, 0])[:LOOK].tolist():
        ids, place = split.store.ids(sample), split.store.place(sample)
        text = ids.tobytes()
        rows.add((place, text))  # a stream may read a row again
        texts.add(text)
        replies.add(b''.join(ids[start:stop].tobytes() for start, stop in split.store.spans(sample)))
    return Likeness(len(rows), len({place for place, _ in rows}), 1 - len(texts) / len(rows), len(replies))
