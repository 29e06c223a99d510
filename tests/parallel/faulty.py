"""A hook that lets a run fail at a given step. Tests put this file beside their config."""

import os
import signal
import time

from mmengine.hooks import Hook

from xtune.registry import HOOKS


@HOOKS.register_module()
class FaultyHook(Hook):
    """Before step `step` (from 1) the processes `ranks` do `what`: 'die' (SIGKILL), 'die_once', or 'hang'.

    With 'slow_disk' what is written from then on does not reach the disk. Every step takes `pause` seconds more.
    """

    def __init__(self, what: str = '', step: int = 0, ranks: tuple = (), pause: float = 0.0) -> None:
        self.what, self.step, self.ranks, self.pause = what, step, ranks, pause

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        time.sleep(self.pause)
        if batch_idx + 1 != self.step or int(os.environ['RANK']) not in self.ranks:
            return
        if self.what == 'hang':
            time.sleep(3600)
        if self.what == 'slow_disk':
            os.fsync = lambda file: time.sleep(3600)
            return
        if self.what == 'die' or os.environ['TORCHELASTIC_RESTART_COUNT'] == '0':
            os.kill(os.getpid(), signal.SIGKILL)
