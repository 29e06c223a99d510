"""Mix several sources: how often each sample is used per epoch."""

import numpy as np

from ..errors import DataError

MAX_REPEATS = 1000  # uses of a sample per epoch


def mix(counts: list[int], weights: list[float] | None, seed: int) -> tuple[np.ndarray, list[float]]:
    """Return the sample indices of one epoch, over the concatenated sources, and how often each source is used.

    Without weights, every sample is used once. With weights, each source's share of samples in an epoch is its weight,
    and every sample is used: the source that is largest relative to its weight is used once, the others are repeated.
    A source that is used 2.3 times has every sample twice, and a random 30 % of them a third time.

    Args:
        counts: Samples of each source.
        weights: Share of each source, with any sum; None concatenates the sources.
        seed: Seed of the choice of samples that are used once more.

    Raises:
        DataError: A source would be used more than `MAX_REPEATS` times.
    """
    offsets = np.cumsum([0, *counts])[:-1]
    if weights is None:
        return np.arange(sum(counts)), [1.0] * len(counts)
    epoch = max(count / weight for count, weight in zip(counts, weights, strict=True))
    if max(epoch * weight / count for count, weight in zip(counts, weights, strict=True)) > MAX_REPEATS:
        raise DataError(
            f'with the weights {weights} a data set would be used more than {MAX_REPEATS:,} times per epoch; set '
            'weights closer to the sizes of the data sets, or a limit for the largest one'
        )
    indices, repeats = [], []
    for number, (count, weight, offset) in enumerate(zip(counts, weights, offsets, strict=True)):
        wanted = max(count, round(epoch * weight))
        full_passes, remainder = divmod(wanted, count)
        extra = np.random.default_rng((seed, number)).permutation(count)[:remainder]
        indices.append(offset + np.concatenate([np.tile(np.arange(count), full_passes), np.sort(extra)]))
        repeats.append(wanted / count)
    return np.concatenate(indices), repeats
