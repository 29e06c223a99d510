"""Every private name of DeepSpeed that xtune uses is there; tests/parallel trains through them on two processes."""

import inspect

import pytest

from xtune.compat import deepspeed_private

pytest.importorskip('deepspeed')


def test_process_groups_are_forgotten():
    from deepspeed.utils import groups

    assert callable(groups._release_process_group_references)
    deepspeed_private.forget_process_groups()
    assert groups._WORLD_GROUP is None


@pytest.mark.parametrize('stage, name', [(2, 'single_partition_of_fp32_groups'), (3, 'fp32_partitioned_groups_flat')])
def test_optimizers_have_flat_partitions(stage, name):
    from deepspeed.runtime.zero import stage3, stage_1_and_2

    module = stage3 if stage == 3 else stage_1_and_2
    assert f'self.{name}' in inspect.getsource(module)

    class Optimizer:
        pass

    optimizer = Optimizer()
    setattr(optimizer, name, ['flat'])
    assert deepspeed_private.flat_partitions(optimizer, stage) == ['flat']


def test_state_is_linked_by_stages_1_and_2():
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    assert callable(DeepSpeedZeroOptimizer._lazy_init_hp_params_optimizer_state)
    calls = []

    class Optimizer:
        def _lazy_init_hp_params_optimizer_state(self):
            calls.append(self)

    optimizer = Optimizer()
    for stage in (1, 2, 3):
        deepspeed_private.link_optimizer_state(optimizer, stage)
    assert calls == [optimizer] * 2
