"""Replaces the attention of a model by one without masks, if a parity check confirms the same results."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from ..compat.torch_private import maybe_mark_dynamic
from ..compat.transformers_private import attention_of
from ..data.batches import PAD_MULTIPLE, MicroBatch
from ..errors import ModelError
from ..ops import flash_attention_3
from ..ops.varlen_attention import CAUSAL, NEEDS_ORIGINAL_ATTENTION, PER_SAMPLE, VARLEN
from ..utils.language_model import base_of
from ..utils.quiet import quiet
from .attention_parity import AttentionParity

# Layer types of transformers whose attention, if they have any, the functions here compute.
LAYER_TYPES = ('full_attention', 'sliding_attention', 'linear_attention')


class PackedAttention:
    """The attention of `llm` without masks, which replaces its original attention.

    Args:
        llm: The model.
        name: An attention function of `varlen_attention.py`.

    Attributes:
        original: The name of the original attention.
        kernel: The kernel that computes it instead of torch's own; None: torch's own.
    """

    def __init__(self, llm: torch.nn.Module, name: str) -> None:
        self.model, self.name = base_of(llm), name
        self.kernel: str | None = None
        self.original: str = attention_of(self.model.config)
        self.model.base_model.register_forward_pre_hook(_refuse_mask, with_kwargs=True)
        self._set(name)

    @property
    def is_installed(self) -> bool:
        """Whether the model took the attention: some set their own whatever is asked for."""
        return attention_of(self.model.config) != self.original

    def model_kwargs(self, batch: MicroBatch) -> dict[str, Any]:
        """Return the arguments of the model's call that its attention needs for `batch`."""
        if self.name == CAUSAL:
            return {}
        if batch.cu_seqlens.device.type != 'cpu':
            maybe_mark_dynamic(batch.cu_seqlens, 0)  # layers compile once for any number of samples
        return dict(packed_cu_seqlens=batch.cu_seqlens, packed_max_seqlen=batch.max_seqlen)

    def remove(self) -> None:
        """Give the model its original attention back."""
        self._set(self.original)

    @contextmanager
    def original_attention(self) -> Iterator[None]:
        """Return a context in which the model has its original attention, as generation needs."""
        self.remove()
        try:
            yield
        finally:
            self._set(self.name)

    def _set(self, name: str) -> None:
        with quiet():
            self.model.set_attn_implementation(name)


def _refuse_mask(model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse a mask that transformers would ignore: it has no mask function for CAUSAL."""
    mask = kwargs.get('attention_mask', args[1] if len(args) > 1 else None)
    if mask is not None and attention_of(model.config) == CAUSAL:
        raise ModelError(NEEDS_ORIGINAL_ATTENTION)


def install_packed_attention(
    llm: torch.nn.Module,
    dtype: torch.dtype,
    device: torch.device,
    max_length: int,
    context: AbstractContextManager,
    packed: bool = True,
    allow_flash_attention_3: bool = True,
) -> PackedAttention | None:
    """Replace the attention of `llm` by one without masks, and return it.

    Args:
        llm: The model.
        dtype: The compute type.
        device: The device it computes on.
        max_length: Tokens of the longest sequence.
        context: The context the model computes in, such as autocast.
        packed: Sequences have samples that must not see each other.
        allow_flash_attention_3: Use FlashAttention 3 where it is installed.

    Returns:
        None where the model or the device does not support it; the model then has its original attention.
    """
    if flash_attention_3.is_active():  # by an earlier run in this process
        flash_attention_3.restore()
    model = base_of(llm)
    name = choose_attention(model.config, attention_of(model.config), dtype, device.type, max_length, packed)
    if name is None:
        return None
    attention, parity = PackedAttention(llm, name), AttentionParity(llm, name, dtype, device, context)
    if not attention.is_installed:
        return None
    with attention.original_attention():
        expected = parity.outputs(masked=True)
    if not parity.allclose(parity.outputs(), expected):
        attention.remove()
        return None
    may_use = allow_flash_attention_3 and flash_attention_3.is_installed(device, dtype)
    if may_use and flash_attention_3.activate():
        if parity.allclose(parity.outputs(), expected):
            attention.kernel = flash_attention_3.NAME
        else:
            flash_attention_3.restore()
    return attention


def choose_attention(
    model_config: Any, implementation: str, dtype: torch.dtype, device_type: str, max_length: int, packed: bool = True
) -> str | None:
    """Return the attention function that may replace `implementation` according to the config of a model; None: none.

    The parity check comes after this. For the other arguments see `install_packed_attention`.
    """
    config = model_config.get_text_config()
    if implementation != 'sdpa' or _has_attention_dropout(config) or not _supports_layer_types(config):
        return None
    if device_type == 'cpu':
        return PER_SAMPLE if packed else None  # a CPU has no synchronization to avoid
    if device_type != 'cuda':
        return None
    window = getattr(config, 'sliding_window', None)
    max_seq_len = max_length if packed else -(-max_length // PAD_MULTIPLE) * PAD_MULTIPLE
    is_windowed = bool(window) and window < max_seq_len
    if not packed and not is_windowed:
        return CAUSAL
    return VARLEN if dtype in (torch.bfloat16, torch.float16) else None


def _has_attention_dropout(config: Any) -> bool:
    """Return whether a config sets attention dropout, under any of the names that models use for it."""
    return any(
        bool(v) for n, v in vars(config).items() if n.startswith('att') and ('dropout' in n or n.endswith('drop'))
    )


def _supports_layer_types(config: Any) -> bool:
    layer_types = getattr(config, 'layer_types', None) or ()
    return all(layer_type in LAYER_TYPES or 'attention' not in layer_type for layer_type in layer_types)
