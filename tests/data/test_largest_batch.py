"""The largest micro-batch: no step of the run has a wider one."""

import pytest

from xtune.config.load import load
from xtune.config.wire import wire
from xtune.data.build import build_data
from xtune.data.largest_batch import largest_batch


@pytest.mark.parametrize('pack', [True, False])
def test_it_is_as_wide_as_any_of_the_run(pack, make_config):
    data = build_data(wire(load(make_config(pack=pack), {})))
    found = largest_batch(data)
    shapes = [batch.input_ids.shape for step in range(len(data.steps)) for batch in data.steps[step]]
    assert tuple(found.input_ids.shape) == (2, max(width for _, width in shapes))
    assert (found.position_ids is None) == (not pack) and found.trained == len(found.trained_at) > 0


def test_of_a_stream_it_has_full_length(make_config):
    options = {'data.streaming': True, 'data.window': 8, 'schedule.max_steps': 2, 'schedule.batch_size': 3}
    found = largest_batch(build_data(wire(load(make_config(pack=False, **options), {}))))
    assert found.input_ids.shape == found.targets.shape == (3, 128)
    assert found.targets.flatten()[found.trained_at].min() >= 0 and found.trained == (found.targets >= 0).sum()
