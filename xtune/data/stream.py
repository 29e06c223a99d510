"""Train on rows while they are read, for data sets larger than the disk. Rows are tokenized and packed by window.

    rows      |---- window 0 ----|---- window 1 ----|--- ...        in order, or sampled from several sources
    sequences  packed, shuffled   packed, shuffled
    steps      [..][..][..][..]r  r[.][..][..][..]r                 r: the remainder starts the next window

Nothing is written to disk, and at most one window is in memory. A `Cursor` stores the position after a step, so a
resumed run continues with exactly the next step. A source that is exhausted starts again.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from .cursor import Cursor
from .encode import Encoder
from .encode_rows import CHUNK, encode_rows
from .mapper import RowMapper
from .memory_store import MemoryStore
from .open_source import finish_report
from .packing import Sequences, pack
from .report import Report
from .sample import Sample
from .sources import Row, RowSource


@dataclass
class Window:
    """The sequences of one window in training order.

    Attributes:
        store: The samples.
        sequences: Those of `steps` optimizer steps, then the remainder.
        steps: Optimizer steps.
        begin: Position at the start of this window.
        next: Position at the start of the next window.
        reports: Row counts of each source.
    """

    store: MemoryStore
    sequences: Sequences
    steps: int
    begin: Cursor
    next: Cursor
    reports: list[Report]


@dataclass(frozen=True, kw_only=True)
class StreamSettings:
    """How a stream is sampled, packed and checked.

    Attributes:
        weights: Probability of each source to provide the next row; None reads one source after the other.
        window: Rows per window.
        sequences_per_step: Sequences per optimizer step, over all devices.
        packing: Packing mode (see `packing`).
        max_length: Tokens per sequence.
        seed: Seed of sampling and shuffling, together with the window's number.
        max_bad_rows: Share of unusable rows in a window above which the run stops.
        strict: Stop if some data of a window are not used.
    """

    weights: list[float] | None
    window: int
    sequences_per_step: int
    packing: str
    max_length: int
    seed: int
    max_bad_rows: float
    strict: bool = False


class RowStream:
    """Windows of rows from one or more sources.

    Args:
        sources: The rows of each source, and their mapper.
        encoders: The encoder of each source.
        settings: How rows are sampled, packed and checked.
    """

    def __init__(
        self, sources: list[tuple[RowSource, RowMapper]], encoders: list[Encoder], settings: StreamSettings
    ) -> None:
        self.sources, self.encoders, self.settings = sources, encoders, settings
        self._readers = [_Reader(rows) for rows, _ in sources]

    @property
    def sequences_per_step(self) -> int:
        """Sequences per optimizer step, over all devices."""
        return self.settings.sequences_per_step

    def windows(self, cursor: Cursor) -> Iterator[Window]:
        """Yield windows without end, starting with the one at `cursor`."""
        while True:
            window = self._window(cursor)
            cursor = window.next
            yield window
            del window  # free its memory before the next one is tokenized

    def _window(self, begin: Cursor) -> Window:
        settings, rng = self.settings, np.random.default_rng((self.settings.seed, begin.number))
        rows, positions = self._read(begin, rng)
        store, reports = self._tokenize(begin, rows)
        self._require_usable(reports, begin.number)
        new = np.arange(len(begin.samples), len(store))
        packed = pack(settings.packing, store.lengths, new, settings.max_length, int(rng.integers(1 << 31)))
        order = rng.permutation(len(packed))
        sequences = [np.array(ranges, np.int64) for ranges in begin.sequences] + [packed[i] for i in order]
        steps = len(sequences) // self.sequences_per_step
        remainder = _remainder(store, sequences[steps * self.sequences_per_step :])
        following = Cursor(begin.number + 1, positions, 0, *remainder)
        return Window(store, _to_sequences(sequences, packed.concatenated), steps, begin, following, reports)

    def _tokenize(self, begin: Cursor, rows: list[tuple[int, Row]]) -> tuple[MemoryStore, list[Report]]:
        """Return the samples of the previous remainder and of `rows`, and the row counts of each source."""
        samples = [
            Sample(np.array(ids, np.int32), [tuple(s) for s in spans], [True] * len(spans))
            for ids, spans, _ in begin.samples
        ]
        places = [place for *_, place in begin.samples]
        reports = [Report(format=mapper.name) for _, mapper in self.sources]
        for number, (_, mapper) in enumerate(self.sources):
            rows_of_source = [row for source, row in rows if source == number]
            for at in range(0, len(rows_of_source), CHUNK):
                encoded = encode_rows(rows_of_source[at : at + CHUNK], mapper, self.encoders[number])
                reports[number].add(encoded.report)
                samples += encoded.samples
                places += [row.place for row in encoded.rows]
        return MemoryStore(samples, places), reports

    def _require_usable(self, reports: list[Report], number: int) -> None:
        total = Report()
        for report in reports:
            total.add(report)
        paths = ' and '.join(rows.source.path for rows, _ in self.sources)
        total.require_usable(f'{paths}, window {number + 1},', self.settings.max_bad_rows)
        for (rows, _), encoder, report in zip(self.sources, self.encoders, reports, strict=True):
            finish_report(report, rows, encoder)
            if self.settings.strict:
                report.require_all_used(f'{rows.source.path}, window {number + 1},')

    def _read(self, begin: Cursor, rng: np.random.Generator) -> tuple[list[tuple[int, Row]], list[int]]:
        """Return the rows of a window as (number of the source, row), and the position of each source after it."""
        rows, positions, weights = [], list(begin.rows), self.settings.weights
        if weights is not None:
            shares = np.array(weights) / sum(weights)
            sampled = iter(rng.choice(len(self.sources), size=self.settings.window, p=shares).tolist())
        else:
            sampled = None
            current = next((i for i, position in enumerate(positions) if position), 0)
        for _ in range(self.settings.window):
            number = next(sampled) if sampled else current
            row = self._readers[number].read(positions[number])
            if row is None:  # the source is exhausted: start the next one, or, if sampled, start it again
                positions[number] = 0
                if sampled is None:
                    current = number = (number + 1) % len(self.sources)
                row = self._readers[number].read(0)
                if row is None:
                    raise DataError(f'{self.sources[number][0].source.path} has no rows')
            positions[number] += 1
            rows.append((number, row))
        return rows, positions


class _Reader:
    """Reads one source by position; consecutive positions continue one iterator."""

    def __init__(self, rows: RowSource) -> None:
        self._source, self._iterator, self._position = rows, None, -1

    def read(self, position: int) -> Row | None:
        """Return the row at `position`, or None if the source has no more."""
        if self._iterator is None or self._position != position:
            self._iterator = self._source.rows(position)
        row = next(self._iterator, None)
        if row is None:
            self._iterator = None
        self._position = position + 1
        return row


def _to_sequences(sequences: list[np.ndarray], concatenated: bool) -> Sequences:
    ranges = np.concatenate(sequences) if sequences else np.zeros((0, 3), np.int64)
    return Sequences(ranges, np.cumsum([0, *map(len, sequences)]), concatenated)


def _remainder(store: MemoryStore, sequences: list[np.ndarray]) -> tuple[list, list]:
    """Return the samples of `sequences`, and the sequences with token ranges renumbered to these samples."""
    numbers: dict[int, int] = {}
    renumbered = [
        [[numbers.setdefault(sample, len(numbers)), first, stop] for sample, first, stop in ranges.tolist()]
        for ranges in sequences
    ]
    samples = [(store.ids(i).tolist(), store.spans(i).tolist(), store.place(i)) for i in numbers]
    return samples, renumbered
