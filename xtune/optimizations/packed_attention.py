"""Lets a model attend without masks, over packed rows by where samples begin, if a trial shows that it may."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from ..data.batches import PAD_MULTIPLE, MicroBatch
from ..errors import ModelError
from ..ops import flash_attention_3
from ..ops.varlen_attention import KERNEL, LOOP, NEEDS_WHOLE_ROWS, ROWS, TAKES
from ..parallel.ulysses import base_of
from ..utils.quiet import quiet
from .attention_parity import Trial

# Kinds of layers that attend as the functions here do, or not at all.
KINDS = ('full_attention', 'sliding_attention', 'linear_attention')


class PackedAttention:
    """The attention of `llm` over rows.

    Args:
        llm: The model, whose attention is replaced.
        name: One of transformers' AttentionInterface that takes `arguments`.

    Attributes:
        kernel: What computes it instead of torch's own kernels; None: they do.
    """

    def __init__(self, llm: torch.nn.Module, name: str) -> None:
        self.model, self.name = base_of(llm), name
        self.kernel: str | None = None
        self.inner: str = self.model.config._attn_implementation
        self.model.base_model.register_forward_pre_hook(_refuse_mask, with_kwargs=True)
        self._attend_with(name)

    def arguments(self, batch: MicroBatch) -> dict[str, Any]:
        """Return what the model's call takes beside the tokens of `batch`."""
        if self.name == ROWS:
            return {}
        if batch.cu_seqlens.device.type != 'cpu':
            # Layers compile once for any number of samples.
            torch._dynamo.maybe_mark_dynamic(batch.cu_seqlens, 0)
        return dict(segment_borders=batch.cu_seqlens, longest_segment=batch.max_seqlen)

    @contextmanager
    def as_before(self) -> Iterator[None]:
        """Let the model attend as it did, as generation needs."""
        self._attend_with(self.inner)
        try:
            yield
        finally:
            self._attend_with(self.name)

    def _attend_with(self, name: str) -> None:
        with quiet():
            self.model.set_attn_implementation(name)


def _refuse_mask(model: torch.nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
    """Refuse a mask where transformers would leave it out: it knows no mask function of ROWS."""
    mask = given.get('attention_mask', args[1] if len(args) > 1 else None)
    if mask is not None and model.config._attn_implementation == ROWS:
        raise ModelError(NEEDS_WHOLE_ROWS)


def packed_attention(
    llm: torch.nn.Module,
    dtype: torch.dtype,
    device: torch.device,
    max_length: int,
    context: AbstractContextManager,
    packed: bool = True,
    flash3_too: bool = True,
) -> PackedAttention | None:
    """Let `llm` attend without masks, and return how; None: it is as before, for it or the device cannot.

    Args:
        llm: The model.
        dtype: The compute type.
        device: Where it computes.
        max_length: Tokens of the longest row.
        context: In which the model computes.
        packed: Rows hold samples that do not see each other.
        flash3_too: Where FlashAttention 3 is installed, compute with it.
    """
    if flash_attention_3.active():  # since an earlier run; this one decides for itself
        flash_attention_3.restore()
    model = base_of(llm)
    name = chosen(model.config, model.config._attn_implementation, dtype, device.type, max_length, packed)
    if name is None:
        return None
    attention, trial = PackedAttention(llm, name), Trial(llm, name, dtype, device, context)
    if model.config._attn_implementation == attention.inner:
        return None
    with attention.as_before():
        expected = trial.run(masked=True)
    if not trial.agree(trial.run(), expected):
        attention._attend_with(attention.inner)
        return None
    if flash3_too and flash_attention_3.installed(device, dtype) and flash_attention_3.activate():
        attention.kernel = flash_attention_3.NAME if trial.agree(trial.run(), expected) else None
        if attention.kernel is None:
            flash_attention_3.restore()
    return attention


def chosen(
    model_config: Any, implementation: str, dtype: torch.dtype, device: str, max_length: int, packed: bool = True
) -> str | None:
    """Return the attention that a model may have by its config on a `device` of this type instead of `implementation`;
    None: none. The trial comes on top. For the other arguments see `packed_attention`."""
    config = model_config.get_text_config()
    if implementation != 'sdpa' or _has_dropout(config) or not _kinds_fit(config):
        return None
    if device == 'cpu':
        return LOOP if packed else None  # nothing waits for a CPU
    if device != 'cuda':
        return None
    window = getattr(config, 'sliding_window', None)
    widest = max_length if packed else -(-max_length // PAD_MULTIPLE) * PAD_MULTIPLE
    narrow = bool(window) and window < widest
    if not packed and not narrow:
        return ROWS
    takes = dtype in (torch.bfloat16, torch.float16) and TAKES and not (narrow and 'window_size' not in TAKES)
    return KERNEL if takes else None


def _has_dropout(config: Any) -> bool:
    """Return whether attention weights are dropped, by the names that models give it."""
    return any(
        bool(v) for n, v in vars(config).items() if n.startswith('att') and ('dropout' in n or n.endswith('drop'))
    )


def _kinds_fit(config: Any) -> bool:
    kinds = getattr(config, 'layer_types', None) or ()
    return all(kind in KINDS or 'attention' not in kind for kind in kinds)
