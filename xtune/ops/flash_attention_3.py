"""FlashAttention 3 (https://arxiv.org/abs/2407.08608) behind torch's own attention functions, where it is installed.

Its package can replace the kernels that come with torch, which are FlashAttention 2. So the package flash-attn of
version 2 would add nothing.
"""

from importlib.util import find_spec

import torch
from torch.nn import attention

NAME = 'FlashAttention 3'
MODULE = 'flash_attn_interface'
# Its key among torch's flash attention implementations.
KEY = 'FA3'
# Major compute capability of the GPUs it supports (H100).
HOPPER = 9


def is_installed(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether it supports `dtype` and `device`, and its package is installed."""
    return (
        dtype in (torch.bfloat16, torch.float16)
        and device.type == 'cuda'
        and torch.cuda.get_device_capability(device)[0] == HOPPER
        and KEY in attention.list_flash_attention_impls()
        and find_spec(MODULE) is not None
    )


def is_active() -> bool:
    """Return whether torch's attention functions use it in this process."""
    return attention.current_flash_attention_impl() == KEY


def activate() -> bool:
    """Let torch's attention functions use it in this process; return whether they do.

    They do not where its package was built for another torch, or where the user activated another implementation, which
    stays.
    """
    if attention.current_flash_attention_impl() is None:
        try:
            attention.activate_flash_attention_impl(KEY)
        except (ImportError, OSError, RuntimeError):
            return False
    return is_active()


def restore() -> None:
    """Let torch's attention functions use torch's own kernels again."""
    attention.restore_flash_attention_impl()
