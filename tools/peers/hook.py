"""Notes the steps of `xtune train`; configs name it in `custom_imports`."""

from pathlib import Path
from typing import Any

from mmengine.hooks import Hook

from xtune.registry import HOOKS

from .ticks import Ticks


@HOOKS.register_module()
class TickHook(Hook):
    """Notes the end of each of `steps` steps; writes to `path`.

    It stands before the hook that reports, which forgets the peak of memory; from one step to the next lies one round
    of everything either way.
    """

    priority = 'NORMAL'

    def __init__(self, path: str, steps: int) -> None:
        self.ticks = Ticks(Path(path), steps)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.ticks.add(outputs['loss'])
