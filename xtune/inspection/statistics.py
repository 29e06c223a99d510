"""Statistics of the samples of a split."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..data.report import counted
from ..data.split import Split

# Samples; reading every span of a very large data set takes minutes.
MAX_SAMPLES = 100_000


@dataclass(frozen=True)
class Bin:
    """Number of samples with `low` to `high` tokens."""

    low: int
    high: int
    count: int

    @property
    def name(self) -> str:
        """The range of lengths as text."""
        return f'{self.low:,}-{self.high:,}' if self.high > self.low else f'{self.low:,}'


def sample_lengths(split: Split) -> np.ndarray:
    """Return the number of tokens of each sample [N]; a sample that is used twice is counted twice."""
    segments = split.sequences.ranges
    return split.store.lengths[segments[segments[:, 1] == 0, 0]]


def histogram(lengths: np.ndarray, bins: int = 10) -> list[Bin]:
    """Return at most `bins` bins of equal width, 1, 2 or 5 times a power of ten, from the shortest to the longest."""
    low, high = int(lengths.min()), int(lengths.max())
    widths = (step * 10**power for power in range(19) for step in (1, 2, 5))
    width = next(w for w in widths if high // w - low // w < bins)
    starts = range(low // width * width, high + 1, width)
    counts = np.bincount(lengths // width - low // width, minlength=len(starts)).tolist()
    return [Bin(start, start + width - 1, count) for start, count in zip(starts, counts, strict=True)]


def length_text(lengths: np.ndarray) -> str:
    """Return a summary of the lengths (tokens) in one line."""
    median, p95 = np.percentile(lengths, [50, 95], method='higher')
    return (
        f'min {lengths.min():,}, median {median:,}, p95 {p95:,}, max {lengths.max():,}, '
        f'mean {lengths.mean():,.1f} tokens'
    )


def trained_share(split: Split) -> float:
    """Return the fraction of tokens that are trained."""
    if split.reports:
        used = split.repeats or [1.0] * len(split.reports)
        pairs = list(zip(split.reports, used, strict=False))
        return sum(r.trained_tokens * n for r, n in pairs) / sum(r.tokens * n for r, n in pairs)
    samples = np.unique(split.sequences.ranges[:, 0])[:MAX_SAMPLES].tolist()
    trained = sum(
        int((stops - np.maximum(starts, 1)).sum()) for starts, stops in (split.store.spans(i).T for i in samples)
    )
    return trained / int(split.store.lengths[samples].sum())


def efficiency(split: Split, max_length: int) -> float:
    """Return the number of tokens divided by the capacity of full-length sequences."""
    return split.tokens / (len(split.sequences) * max_length)


def figure_lines(split: Split, max_length: int) -> Iterator[tuple[str, str]]:
    """Yield (label, text) about the sequences and samples of a split."""
    full = f'{efficiency(split, max_length):.1%} of {max_length:,} tokens full'
    yield 'sequences', f'{counted(len(split.sequences), "sequence")} of {counted(split.samples, "sample")}, {full}'
    yield 'lengths', length_text(sample_lengths(split))
    yield 'trained', f'{trained_share(split):.1%} of the tokens'
