"""Several sources in one run: how often each sample of each is used in an epoch."""

import numpy as np

from ..errors import DataError

MOST = 1000  # times a sample is used in an epoch


def mixed(counts: list[int], weights: list[float] | None, seed: int) -> tuple[np.ndarray, list[float]]:
    """Return the sample indices of one epoch, over all sources laid end to end, and how often each source is used.

    Without weights every sample is used once. With weights, the shares of samples in an epoch are as the weights, and
    nothing is left out: the source that is largest for its weight is used once, the others repeat. A source that is
    used 2.3 times has every sample twice, and a random three in ten of them a third time.

    Args:
        counts: Samples of each source.
        weights: Share of each source, of any sum; None lays them end to end.
        seed: Decides which samples are used once more.

    Raises:
        DataError: A source would be used more than `MOST` times.
    """
    offsets = np.cumsum([0, *counts])[:-1]
    if weights is None:
        return np.arange(sum(counts)), [1.0] * len(counts)
    epoch = max(count / weight for count, weight in zip(counts, weights, strict=True))
    if max(epoch * weight / count for count, weight in zip(counts, weights, strict=True)) > MOST:
        raise DataError(
            f'with the weights {weights} a data set would be used more than {MOST:,} times an epoch; give weights '
            'nearer to the sizes of the sets, or a limit to the largest one'
        )
    chosen, used = [], []
    for number, (count, weight, offset) in enumerate(zip(counts, weights, offsets, strict=True)):
        wanted = max(count, round(epoch * weight))
        whole, more = divmod(wanted, count)
        extra = np.random.default_rng((seed, number)).permutation(count)[:more]
        chosen.append(offset + np.concatenate([np.tile(np.arange(count), whole), np.sort(extra)]))
        used.append(wanted / count)
    return np.concatenate(chosen), used
