"""Hooks around optimizer steps. All intervals are in optimizer steps."""

from .chat_samples import ChatSamplesHook
from .checkpoint import CheckpointHook
from .heartbeat import AliveHook
from .plot import LossCurveHook
from .progress import ProgressHook
from .user_hooks import given_hooks
from .validation import ValidationHook

__all__ = [
    'AliveHook',
    'ChatSamplesHook',
    'CheckpointHook',
    'LossCurveHook',
    'ProgressHook',
    'ValidationHook',
    'given_hooks',
]
