"""FlashAttention 3 (https://arxiv.org/abs/2407.08608) under torch's own attention functions, where it is installed.

torch 2.11 and later lets its package take the place of the kernels that come with torch, which are FlashAttention 2;
so the package flash-attn of that generation has nothing to add.
"""

from importlib.util import find_spec

import torch
from torch.nn import attention

NAME = 'FlashAttention 3'
MODULE = 'flash_attn_interface'
# In torch's list of what can be activated.
KEY = 'FA3'
# Capability of the GPUs that it is made for, those of the H100.
HOPPER = 9
# They came with torch 2.11.
NEEDED = (
    'activate_flash_attention_impl',
    'current_flash_attention_impl',
    'list_flash_attention_impls',
    'restore_flash_attention_impl',
)


def installed(device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether it computes in `dtype` on `device`, and torch and its package are there."""
    return (
        dtype in (torch.bfloat16, torch.float16)
        and device.type == 'cuda'
        and torch.cuda.get_device_capability(device)[0] == HOPPER
        and all(hasattr(attention, name) for name in NEEDED)
        and KEY in attention.list_flash_attention_impls()
        and find_spec(MODULE) is not None
    )


def active() -> bool:
    """Tell whether this process attends with it."""
    return all(hasattr(attention, name) for name in NEEDED) and attention.current_flash_attention_impl() == KEY


def activate() -> bool:
    """Let this process attend with it, and tell whether it does: its package may be made for another torch, and what
    the user has activated stays."""
    if attention.current_flash_attention_impl() is None:
        try:
            attention.activate_flash_attention_impl(KEY)
        except (ImportError, OSError, RuntimeError):
            return False
    return active()


def restore() -> None:
    """Let this process attend with torch's own kernels."""
    attention.restore_flash_attention_impl()
