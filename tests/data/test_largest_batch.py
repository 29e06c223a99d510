"""The largest micro-batch: no step of the run has longer sequences."""

import pytest
from training import build_data_of

from xtune.config.load import load
from xtune.config.wire import wire
from xtune.data.largest_batch import largest_batch


@pytest.mark.parametrize('pack', [True, False])
def test_it_has_the_longest_sequences_of_the_run(pack, make_config):
    data = build_data_of(wire(load(make_config(pack=pack), {})))
    batch = largest_batch(data)
    shapes = [b.input_ids.shape for step in range(len(data.steps)) for b in data.steps[step]]
    assert tuple(batch.input_ids.shape) == (2, max(seq_len for _, seq_len in shapes))
    assert (batch.position_ids is None) == (not pack) and batch.num_targets == len(batch.target_indices) > 0


def test_in_a_stream_sequences_have_full_length(make_config):
    options = {'data.streaming': True, 'data.window': 8, 'schedule.max_steps': 2, 'schedule.batch_size': 3}
    batch = largest_batch(build_data_of(wire(load(make_config(pack=False, **options), {}))))
    assert batch.input_ids.shape == batch.targets.shape == (3, 128)
    assert batch.targets.flatten()[batch.target_indices].min() >= 0 and batch.num_targets == (batch.targets >= 0).sum()
