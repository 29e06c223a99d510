"""A hook that records the steps of `xtune train`. Configs list it in `custom_imports`."""

from pathlib import Path
from typing import Any

from mmengine.hooks import Hook

from xtune.registry import HOOKS

from .step_timer import StepTimer


@HOOKS.register_module()
class StepTimerHook(Hook):
    """Records the end of each of `steps` steps and writes the result to `path`.

    It runs before the hook that logs metrics, because that hook resets the peak memory. The time between two calls
    is one complete step in any order of hooks.
    """

    priority = 'NORMAL'

    def __init__(self, path: str, steps: int) -> None:
        self.timer = StepTimer(Path(path), steps)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.timer.add(outputs['loss'])
