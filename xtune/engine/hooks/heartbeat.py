"""A heartbeat after every optimizer step."""

from collections.abc import Callable
from typing import Any

from mmengine.hooks import Hook

from ...registry import HOOKS


@HOOKS.register_module()
class HeartbeatHook(Hook):
    """Calls `send_heartbeat` after every optimizer step."""

    priority = 'VERY_HIGH'

    def __init__(self, send_heartbeat: Callable[[], None]) -> None:
        self.send_heartbeat = send_heartbeat

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.send_heartbeat()
