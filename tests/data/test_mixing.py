"""Mixing: the shares of an epoch equal the weights, and every sample is used."""

from collections import Counter

import numpy as np
import pytest

from xtune.data.mixing import mix
from xtune.errors import DataError


def counts_of(indices, counts):
    """How often each sample of each source is in `indices`."""
    used = np.bincount(indices, minlength=sum(counts))
    return np.split(used, np.cumsum(counts)[:-1])


def test_without_weights_every_sample_is_used_once():
    indices, used = mix([3, 1, 2], None, 0)
    assert indices.tolist() == list(range(6)) and used == [1.0] * 3


@pytest.mark.parametrize(
    ('counts', 'weights', 'wanted'),
    [
        ([10, 10], [1, 1], [10, 10]),
        ([10, 10], [3, 1], [30, 10]),
        ([100, 10], [1, 1], [100, 100]),
        ([100, 10], [9, 1], [100, 11]),
        ([10, 100], [0.25, 0.75], [33, 100]),
        ([7, 3, 5], [7, 3, 5], [7, 3, 5]),
        ([5, 2, 1], [0.5, 0.3, 0.2], [5, 3, 2]),
        ([1, 1000], [1, 2], [500, 1000]),
        ([4], [0.3], [4]),
    ],
)
def test_shares_equal_the_weights_and_every_sample_is_used(counts, weights, wanted):
    indices, used = mix(counts, weights, 0)
    per_source = counts_of(indices, counts)
    assert [int(one.sum()) for one in per_source] == wanted
    assert used == [want / count for want, count in zip(wanted, counts, strict=True)] and min(used) == 1
    for one in per_source:  # each sample as often as any other, or once more
        assert one.min() >= 1 and one.max() - one.min() <= 1


@pytest.mark.parametrize('seed', range(25))
def test_any_counts_and_weights(seed):
    rng = np.random.default_rng(seed)
    number = int(rng.integers(1, 6))
    counts = rng.integers(1, 200, number).tolist()
    weights = np.round(rng.uniform(0.05, 3, number), 2).tolist()
    indices, used = mix(counts, weights, seed)
    per_source = [int(one.sum()) for one in counts_of(indices, counts)]
    assert min(np.bincount(indices)) >= 1 and min(used) == pytest.approx(1, abs=1e-9)
    for share, weight in zip(np.array(per_source) / len(indices), weights, strict=True):
        assert share == pytest.approx(weight / sum(weights), abs=number / len(indices))


def test_the_scale_of_the_weights_does_not_matter():
    assert mix([50, 20], [3, 1], 0)[0].tolist() == mix([50, 20], [0.75, 0.25], 0)[0].tolist()


def test_the_seed_decides_which_samples_are_repeated():
    def extra(seed, source=0):
        used = counts_of(mix([10, 10, 40], [1, 1, 2.6667], seed)[0], [10, 10, 40])
        return np.flatnonzero(used[source] == 2).tolist()

    assert extra(1) == extra(1) and len(extra(1)) == 5
    assert len({tuple(extra(seed)) for seed in range(10)}) > 5
    assert any(extra(seed) != extra(seed, 1) for seed in range(5))  # each source draws its own
    drawn = Counter(sample for seed in range(200) for sample in extra(seed))
    assert len(drawn) == 10 and max(drawn.values()) < 2 * min(drawn.values())


def test_weights_that_repeat_a_source_too_often_are_refused():
    with pytest.raises(DataError, match='1,000 times per epoch'):
        mix([1000, 10], [1e-4, 1.0], 0)
