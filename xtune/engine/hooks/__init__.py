"""Hooks: what happens around optimizer steps. All intervals count optimizer steps."""

from .alive import AliveHook
from .chat_samples import ChatSamplesHook
from .checkpoint import CheckpointHook
from .given import given_hooks
from .plot import LossCurveHook
from .progress import ProgressHook
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
