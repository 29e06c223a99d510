"""Hooks around optimizer steps. All intervals are in optimizer steps."""

from .chat_samples import ChatSamplesHook
from .checkpoint import CheckpointHook
from .heartbeat import HeartbeatHook
from .plot import LossCurveHook
from .progress import ProgressHook
from .user_hooks import resolve_custom_hooks
from .validation import ValidationHook

__all__ = [
    'HeartbeatHook',
    'ChatSamplesHook',
    'CheckpointHook',
    'LossCurveHook',
    'ProgressHook',
    'ValidationHook',
    'resolve_custom_hooks',
]
