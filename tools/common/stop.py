"""Ends a run without a checkpoint, which of an 8B model is 96 GB; configs name it in `custom_imports`."""

from typing import Any

from mmengine.hooks import Hook

from xtune.registry import HOOKS


@HOOKS.register_module()
class StopUnsaved(Hook):
    """Ends every process of the run, as a second Ctrl-C does, after the figures of step `steps` are written."""

    priority = 'LOWEST'

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if runner.train_loop.steps_done >= self.steps:
            raise KeyboardInterrupt
