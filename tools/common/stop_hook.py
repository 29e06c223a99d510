"""A hook that stops a run without a checkpoint (96 GB for a full 8B model). Configs list it in `custom_imports`."""

from typing import Any

from mmengine.hooks import Hook

from xtune.registry import HOOKS


@HOOKS.register_module()
class StopWithoutCheckpoint(Hook):
    """Stops all ranks, like a second Ctrl-C, after the metrics of step `max_steps` are written."""

    priority = 'LOWEST'

    def __init__(self, max_steps: int) -> None:
        self.max_steps = max_steps

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if runner.train_loop.steps_done >= self.max_steps:
            raise KeyboardInterrupt
