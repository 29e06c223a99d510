"""The micro-batches of a step are distributed over ranks: none is lost or repeated, all ranks get the same number."""

import numpy as np
import pytest

from xtune.data.batch_schedule import BatchSchedule
from xtune.data.batches import IGNORE_INDEX
from xtune.data.collate import collate
from xtune.data.packing import Sequences
from xtune.data.rank_shard import RankShard


def schedule_of(count, batch_size, accumulation, devices, longest_first=False):
    """A schedule of `count` sequences of one sample each."""
    lengths = np.arange(1, count + 1) * 7 % 13 + 2
    ranges = np.stack([np.arange(count), np.zeros(count, int), lengths], axis=1)
    return BatchSchedule(
        sequences=Sequences(ranges, np.arange(count + 1)),
        batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        seed=3,
        longest_first=longest_first,
        devices=devices,
    )


def order(schedule, steps):
    """Sample indices of the first steps, over all ranks."""
    micro_batches = (micro_batch for step in range(steps) for micro_batch in schedule.step(step))
    return [int(ranges[0, 0]) for micro_batch in micro_batches for ranges in micro_batch]


@pytest.mark.parametrize('longest_first', [False, True])
@pytest.mark.parametrize(('batch_size', 'accumulation', 'devices'), [(1, 4, 2), (2, 2, 2), (1, 1, 8), (4, 1, 2)])
def test_order_does_not_depend_on_the_number_of_devices(batch_size, accumulation, devices, longest_first):
    one = schedule_of(43, 1, 8, 1, longest_first)
    many = schedule_of(43, batch_size, accumulation, devices, longest_first)
    assert one.sequences_per_step == many.sequences_per_step == 8
    assert one.steps_per_epoch == many.steps_per_epoch == 6
    for step in range(12):
        assert sorted(order(one, 12)[step * 8 : step * 8 + 8]) == sorted(order(many, 12)[step * 8 : step * 8 + 8])
    assert order(one, 12) == order(many, 12)


@pytest.mark.parametrize('devices', [1, 2, 3, 8])
@pytest.mark.parametrize('count', [1, 5, 16, 43])
def test_an_epoch_has_every_sequence_once_and_all_ranks_get_the_same_number_of_micro_batches(count, devices):
    schedule, seen = schedule_of(count, 2, 2, devices), []
    for step in range(schedule.steps_per_epoch):
        per_rank = [RankShard(rank, devices).select(schedule.step(step), []) for rank in range(devices)]
        assert len({len(micro_batches) for micro_batches in per_rank}) == 1 and len(per_rank[0]) >= 1
        seen += [int(r[0, 0]) for micro_batches in per_rank for micro_batch in micro_batches for r in micro_batch]
    assert sorted(seen) == list(range(count))


def test_missing_micro_batches_are_empty():
    assert [RankShard(rank, 2).select([1, 2, 3], 0) for rank in range(2)] == [[1, 3], [2, 0]]
    assert [RankShard(rank, 4).select([1], 0) for rank in range(4)] == [[1], [0], [0], [0]]
    assert [RankShard(rank, 2).select([1, 2, 3, 4], 0) for rank in range(2)] == [[1, 3], [2, 4]]
    assert RankShard().select([1, 2, 3], 0) == [1, 2, 3]


def test_an_empty_micro_batch_has_no_targets():
    empty = collate(None, [], pad_id=9)
    assert empty.num_targets == 0 and empty.num_tokens == 0 and empty.places == []
    assert empty.input_ids.shape == (1, 2) and (empty.input_ids == 9).all() and (empty.targets == IGNORE_INDEX).all()
