"""Training on rows as they are read, for sets larger than the disk: windows of rows, each tokenised, packed, shuffled.

    rows      |---- window 0 ----|---- window 1 ----|--- ...        read in order, or drawn from several sources
    sequences  shuffled, packed   shuffled, packed
    steps      [..][..][..][..]r  r[.][..][..][..]r                 r: the rest opens the next window

Nothing is written to disk and at most one window stands in memory. A `Cursor` says where a step ended, so a resumed run
goes on with the very next step. When a source ends it begins anew.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import DataError
from .encode import Encoder, Sample
from .mapping import RowMapper
from .packing import Sequences, pack
from .prepare import conclude, encode_rows
from .report import Report
from .sources import Row, RowSource

CHUNK = 500  # rows encoded at a time


class MemoryStore:
    """The samples of one window: what `TokenStore` offers, in memory."""

    def __init__(self, samples: list[Sample], places: list[str]) -> None:
        self.samples, self.places = samples, places
        self.lengths = np.array([len(sample.ids) for sample in samples], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.samples)

    def ids(self, index: int) -> np.ndarray:
        """Return the token ids [S] of a sample."""
        return self.samples[index].ids

    def spans(self, index: int) -> np.ndarray:
        """Return the trained spans [n, 2] of a sample, in token positions."""
        return np.array(self.samples[index].spans, dtype=np.int64).reshape(-1, 2)

    def place(self, index: int) -> str:
        """Return where a person finds the row of a sample."""
        return self.places[index]


@dataclass
class Cursor:
    """Where a stream stands: at optimizer step `step` of window `number`, which began at row `rows[i]` of source i.

    `samples` (ids, spans, place) and `sequences` (pieces) are the rest of the window before.
    """

    number: int
    rows: list[int]
    step: int = 0
    samples: list[tuple[list[int], list[list[int]], str]] = field(default_factory=list)
    sequences: list[list[list[int]]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, which a checkpoint can hold."""
        return dict(vars(self))


@dataclass
class Window:
    """The sequences of one window in training order, and the cursor at its begin and at the begin of the next.

    `reports` counts the rows of each source.
    """

    store: MemoryStore
    sequences: Sequences
    steps: int
    begin: Cursor
    next: Cursor
    reports: list[Report]


class RowStream:
    """Windows of several sources, mixed by weight or read one after the other.

    Args:
        sources: Where rows come from, and the mapper of each.
        encoders: Make samples of the rows of each source.
        weights: Chance of each source to give the next row; None reads the sources in turn.
        window: Rows in one window.
        per_step: Sequences in one optimizer step.
        mode: How to pack (see `packing`).
        seed: Decides mixing and shuffling, together with the window's number.
        max_bad_rows: Share of unusable rows in a window above which the run stops.
        strict: Stop where something of the rows of a window is not used.
    """

    def __init__(
        self,
        sources: list[tuple[RowSource, RowMapper]],
        encoders: list[Encoder],
        *,
        weights: list[float] | None,
        window: int,
        per_step: int,
        mode: str,
        seed: int,
        max_bad_rows: float,
        strict: bool = False,
    ) -> None:
        self.sources, self.encoders, self.weights = sources, encoders, weights
        self.window, self.per_step, self.mode, self.seed = window, per_step, mode, seed
        self.max_bad_rows, self.strict = max_bad_rows, strict
        self._open: list[Iterator[Row] | None] = [None] * len(sources)
        self._rows = [-1] * len(sources)

    def windows(self, cursor: Cursor) -> Iterator[Window]:
        """Yield windows without end, from the one in which `cursor` stands."""
        while True:
            made = self._window(cursor)
            cursor = made.next
            yield made
            del made  # before the next one is made

    def _window(self, begin: Cursor) -> Window:
        rng = np.random.default_rng((self.seed, begin.number))
        rows, counts = self._read(begin, rng)
        reports = [Report(format=mapper.name) for _, mapper in self.sources]
        samples = [
            Sample(np.array(ids, np.int32), [tuple(s) for s in spans], [True] * len(spans))
            for ids, spans, _ in begin.samples
        ]
        places, carried = [place for *_, place in begin.samples], len(begin.samples)
        for number, (_, mapper) in enumerate(self.sources):
            mine = [row for source, row in rows if source == number]
            for at in range(0, len(mine), CHUNK):
                made, origins, counted = encode_rows(mine[at : at + CHUNK], mapper, self.encoders[number])
                reports[number].add(counted)
                samples += made
                places += [row.place for row in origins]
        self._require_usable(reports, begin.number)
        store = MemoryStore(samples, places)
        packed = pack(
            self.mode,
            store.lengths,
            np.arange(carried, len(samples)),
            self.encoders[0].max_length,
            int(rng.integers(1 << 31)),
        )
        order = rng.permutation(len(packed))
        sequences = [np.array(pieces, np.int64) for pieces in begin.sequences] + [packed[i] for i in order]
        steps = len(sequences) // self.per_step
        rest = _rest(store, sequences[steps * self.per_step :])
        following = Cursor(begin.number + 1, counts, 0, *rest)
        return Window(store, _flat(sequences, packed.joined), steps, begin, following, reports)

    def _require_usable(self, reports: list[Report], number: int) -> None:
        total = Report()
        for report in reports:
            total.add(report)
        paths = ' and '.join(source.source.path for source, _ in self.sources)
        total.require_usable(f'{paths}, window {number + 1},', self.max_bad_rows)
        for (rows, _), encoder, report in zip(self.sources, self.encoders, reports, strict=True):
            conclude(report, rows, encoder)
            if self.strict:
                report.require_all_used(f'{rows.source.path}, window {number + 1},')

    def _read(self, begin: Cursor, rng: np.random.Generator) -> tuple[list[tuple[int, Row]], list[int]]:
        """Return the rows of a window with the number of their source, and the row each source stands at after it."""
        rows, counts = [], list(begin.rows)
        if self.weights is not None:
            shares = np.array(self.weights) / sum(self.weights)
            turns = iter(rng.choice(len(self.sources), size=self.window, p=shares).tolist())
        else:
            current = next((i for i, count in enumerate(counts) if count), 0)
            turns = None
        for _ in range(self.window):
            number = next(turns) if turns else current
            row = self._next(number, counts[number])
            if row is None:  # this source ends: the next one, or itself, begins
                counts[number] = 0
                self._open[number] = None
                if turns is None:
                    current = number = (number + 1) % len(self.sources)
                row = self._next(number, 0)
                if row is None:
                    raise DataError(f'{self.sources[number][0].source.path} has no rows')
            counts[number] += 1
            self._rows[number] = counts[number]
            rows.append((number, row))
        return rows, counts

    def _next(self, number: int, at: int) -> Row | None:
        """Return row `at` of a source, or None if it has no more."""
        if self._open[number] is None or self._rows[number] != at:
            self._open[number], self._rows[number] = self.sources[number][0].rows(at), at
        return next(self._open[number], None)


def _flat(sequences: list[np.ndarray], joined: bool) -> Sequences:
    pieces = np.concatenate(sequences) if sequences else np.zeros((0, 3), np.int64)
    return Sequences(pieces, np.cumsum([0, *map(len, sequences)]), joined)


def _rest(store: MemoryStore, sequences: list[np.ndarray]) -> tuple[list, list]:
    """Return the samples that `sequences` use, and the sequences with indices into those samples."""
    used: dict[int, int] = {}
    moved = [
        [[used.setdefault(sample, len(used)), first, stop] for sample, first, stop in pieces.tolist()]
        for pieces in sequences
    ]
    samples = [(store.ids(i).tolist(), store.spans(i).tolist(), store.place(i)) for i in used]
    return samples, moved
