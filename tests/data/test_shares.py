"""A step's micro-batches are dealt to devices: none is lost, none is doubled, and all devices get as many."""

import numpy as np
import pytest

from xtune.data.batch_schedule import BatchSchedule
from xtune.data.batches import IGNORE, collate
from xtune.data.packing import Sequences
from xtune.data.steps import Share


def plan(count, batch_size, accumulate, devices, longest_first=False):
    lengths = np.arange(1, count + 1) * 7 % 13 + 2
    pieces = np.stack([np.arange(count), np.zeros(count, int), lengths], axis=1)
    sequences = Sequences(pieces, np.arange(count + 1))
    return BatchSchedule(sequences, batch_size, accumulate, seed=3, longest_first=longest_first, devices=devices)


def order(made, steps):
    return [int(pieces[0, 0]) for step in range(steps) for group in made.step(step) for pieces in group]


@pytest.mark.parametrize('longest_first', [False, True])
@pytest.mark.parametrize(('batch_size', 'accumulate', 'devices'), [(1, 4, 2), (2, 2, 2), (1, 1, 8), (4, 1, 2)])
def test_order_does_not_depend_on_the_number_of_devices(batch_size, accumulate, devices, longest_first):
    one, many = plan(43, 1, 8, 1, longest_first), plan(43, batch_size, accumulate, devices, longest_first)
    assert one.per_step == many.per_step and one.steps_per_epoch == many.steps_per_epoch == 6
    for step in range(12):
        assert sorted(order(one, 12)[step * 8 : step * 8 + 8]) == sorted(order(many, 12)[step * 8 : step * 8 + 8])
    assert order(one, 12) == order(many, 12)


@pytest.mark.parametrize('devices', [1, 2, 3, 8])
@pytest.mark.parametrize('count', [1, 5, 16, 43])
def test_an_epoch_holds_every_sequence_once_and_all_devices_do_as_much(count, devices):
    made, seen = plan(count, 2, 2, devices), []
    for step in range(made.steps_per_epoch):
        groups = made.step(step)
        shares = [Share(rank, devices).pick(groups, []) for rank in range(devices)]
        assert len({len(share) for share in shares}) == 1 and len(shares[0]) >= 1
        seen += [int(pieces[0, 0]) for share in shares for group in share for pieces in group]
    assert sorted(seen) == list(range(count))


def test_blanks_only_where_there_are_too_few():
    assert [Share(rank, 2).pick([1, 2, 3], 0) for rank in range(2)] == [[1, 3], [2, 0]]
    assert [Share(rank, 4).pick([1], 0) for rank in range(4)] == [[1], [0], [0], [0]]
    assert [Share(rank, 2).pick([1, 2, 3, 4], 0) for rank in range(2)] == [[1, 3], [2, 4]]
    assert Share().pick([1, 2, 3], 0) == [1, 2, 3]


def test_a_blank_batch_trains_nothing():
    blank = collate(None, [], pad_id=9)
    assert blank.trained == 0 and blank.tokens == 0 and blank.places == []
    assert blank.input_ids.shape == (1, 2) and (blank.input_ids == 9).all() and (blank.targets == IGNORE).all()
