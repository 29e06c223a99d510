"""Private names of DeepSpeed. It is imported when a function is called: only ZeRO strategies need it."""

from typing import Any

import torch


def forget_process_groups() -> None:
    """Let DeepSpeed forget the process groups of an earlier run in this process.

    It keeps them in module variables, and `deepspeed.initialize` would use them after their end.
    """
    from deepspeed.utils import groups

    groups._release_process_group_references(group=None)


def flat_partitions(zero_optimizer: Any, stage: int) -> list[torch.Tensor]:
    """Return the float32 tensors of this rank that the wrapped optimizer updates, one for each parameter group.

    DeepSpeed's public functions reach optimizer state only after the first step has allocated it.
    """
    return zero_optimizer.fp32_partitioned_groups_flat if stage == 3 else zero_optimizer.single_partition_of_fp32_groups


def link_optimizer_state(zero_optimizer: Any, stage: int) -> None:
    """Let the public `safe_set_full_optimizer_state` find state that was allocated outside of a step.

    Stages 1 and 2 link it once, at the first step; stage 3 looks it up each time.
    """
    if stage < 3:
        zero_optimizer._lazy_init_hp_params_optimizer_state()
