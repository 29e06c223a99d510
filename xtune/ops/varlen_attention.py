"""Attention over packed sequences by cu_seqlens, instead of a mask [B, 1, S, S].

Three attention functions in the form of transformers' AttentionInterface:

- `VARLEN`: torch's flash attention kernel for sequences of many lengths, for CUDA with bf16 or fp16.
- `PER_SAMPLE`: one scaled_dot_product_attention per sample, for CPUs. At 8 samples in 2048 tokens it takes half the
  time of a mask.
- `CAUSAL`: scaled_dot_product_attention for sequences of one sample each, in which every token sees all tokens before
  it.

No mask function is registered for them. So transformers makes no mask, and does not search position_ids for samples,
which would synchronize with the GPU.

Legend: B sequences, N query heads, M key/value heads, S tokens of a sequence, T = B * S, H head dimension, C entries of
cu_seqlens.
"""

import inspect
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ..errors import ModelError
from ..utils.model_structure import has_sliding_window

VARLEN, PER_SAMPLE, CAUSAL = 'xtune_varlen', 'xtune_per_sample', 'xtune_causal'
NEEDS_ORIGINAL_ATTENTION = (
    'the model attends as training needs it: generate, and pass attention masks, inside '
    '`with runner.model.generation_mode():`'
)
# Tensor arguments of layers that tell no more about samples than cu_seqlens do.
REDUNDANT = ('position_ids', 'cache_position', 'seq_idx', 'cu_seq_lens_q', 'cu_seq_lens_k')
# Grouped-query attention in the kernel; torch 2.11 does not have the parameter yet.
_HAS_ENABLE_GQA = 'enable_gqa' in inspect.signature(varlen_attn).parameters


def varlen_attention(
    module: torch.nn.Module,
    query_BNSH: torch.Tensor,
    key_BMSH: torch.Tensor,
    value_BMSH: torch.Tensor,
    attention_mask: None,
    packed_cu_seqlens: torch.Tensor | None = None,
    packed_max_seqlen: int | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Return the causal attention [B, S, N, H] of each sample over itself.

    Args:
        module: The attention layer.
        query_BNSH, key_BMSH, value_BMSH: Queries, keys and values.
        attention_mask: None.
        packed_cu_seqlens: int32 [C], start of each sample among the T tokens, then T, perhaps several times.
        packed_max_seqlen: Tokens of the longest sample, or more.
        scaling: Factor of the scores; default H ** -0.5.
        sliding_window: Tokens that a token sees, including itself; default all.
        kwargs: Other arguments of the layer.

    Raises:
        ModelError: The layer needs something that this attention cannot do.
    """
    _check(module, attention_mask, sliding_window, kwargs, packed_cu_seqlens)
    batch_size, heads, seq_len, head_dim = query_BNSH.shape
    scale = head_dim**-0.5 if scaling is None else scaling
    # Under autocast, rotary embeddings leave queries and keys in float32.
    query_TNH, key_TMH, value_TMH = (
        t.to(value_BMSH.dtype).transpose(1, 2).flatten(0, 1).contiguous() for t in (query_BNSH, key_BMSH, value_BMSH)
    )
    is_windowed = sliding_window is not None and sliding_window < seq_len
    options: dict[str, Any] = dict(scale=scale, window_size=(sliding_window - 1 if is_windowed else -1, 0))
    if _HAS_ENABLE_GQA:
        options['enable_gqa'] = key_TMH.shape[1] != heads
    elif key_TMH.shape[1] != heads:
        key_TMH, value_TMH = (t.repeat_interleave(heads // t.shape[1], 1) for t in (key_TMH, value_TMH))
    cu_seqlens_C, max_seqlen = packed_cu_seqlens, packed_max_seqlen
    out_TNH = varlen_attn(query_TNH, key_TMH, value_TMH, cu_seqlens_C, cu_seqlens_C, max_seqlen, max_seqlen, **options)
    return out_TNH.unflatten(0, (batch_size, seq_len)), None


def per_sample_attention(
    module: torch.nn.Module,
    query_BNSH: torch.Tensor,
    key_BMSH: torch.Tensor,
    value_BMSH: torch.Tensor,
    attention_mask: None,
    packed_cu_seqlens: torch.Tensor | None = None,
    packed_max_seqlen: int | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Return the same as `varlen_attention`, computed one sample at a time; `packed_cu_seqlens` is on the CPU."""
    _check(module, attention_mask, sliding_window, kwargs, packed_cu_seqlens)
    batch_size, heads, seq_len, _ = query_BNSH.shape
    cu_seqlens, outputs = packed_cu_seqlens.tolist(), []
    for start, end in zip(cu_seqlens, cu_seqlens[1:], strict=False):
        if start == end:
            continue
        length, (sequence, offset) = end - start, divmod(start, seq_len)
        sample = slice(sequence, sequence + 1), slice(None), slice(offset, offset + length)
        is_windowed = sliding_window is not None and sliding_window < length
        out_1NsH = scaled_dot_product_attention(
            query_BNSH[sample],
            key_BMSH[sample],
            value_BMSH[sample],
            attn_mask=_window_mask(length, sliding_window, query_BNSH.device) if is_windowed else None,
            is_causal=not is_windowed,
            scale=scaling,
            enable_gqa=key_BMSH.shape[1] != heads,
        )
        outputs.append(out_1NsH.transpose(1, 2))
    return torch.cat(outputs, 1).view(batch_size, seq_len, heads, -1), None


def causal_attention(
    module: torch.nn.Module,
    query_BNSH: torch.Tensor,
    key_BMSH: torch.Tensor,
    value_BMSH: torch.Tensor,
    attention_mask: None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Return the causal attention [B, S, N, H] of sequences of one sample each; padding, if any, is on the right."""
    _check(module, attention_mask, sliding_window, kwargs, cu_seqlens=())
    seq_len = query_BNSH.shape[2]
    if sliding_window is not None and sliding_window < seq_len:
        raise ModelError(
            f'sequences of {seq_len} tokens exceed the sliding window of {sliding_window} tokens: set '
            'speed.varlen_attention=False'
        )
    if key_BMSH.shape[2] != seq_len:
        raise ModelError(NEEDS_ORIGINAL_ATTENTION)
    return sdpa_attention_forward(module, query_BNSH, key_BMSH, value_BMSH, None, scaling=scaling, is_causal=True)


def _window_mask(length: int, window: int, device: torch.device) -> torch.Tensor:
    """Return the mask [s, s] of a sample of `length` tokens, each of which sees `window` tokens."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril().triu(1 - window)


def _check(module: torch.nn.Module, mask: Any, window: int | None, kwargs: dict[str, Any], cu_seqlens: Any) -> None:
    """Refuse a layer that would be trained wrongly; `kwargs` are arguments that the attention functions ignore."""
    ignored = [name for name, value in kwargs.items() if torch.is_tensor(value) and name not in REDUNDANT]
    if mask is not None:
        reason = 'makes its own attention mask'
    elif cu_seqlens is None:
        reason = 'does not pass cu_seqlens on to its attention'
    elif ignored or kwargs.get('softcap') is not None:
        reason = f'needs {ignored[0] if ignored else "softcap"} in its attention'
    elif kwargs.get('dropout'):
        reason = 'has attention dropout'
    # Not while compiling: reading the layer's index would compile every layer separately.
    elif window is None and not torch.compiler.is_compiling() and has_sliding_window(module):
        reason = 'does not pass its sliding window on to its attention'
    else:
        return
    raise ModelError(f'{type(module).__name__} {reason}; set speed.varlen_attention=False')


AttentionInterface.register(VARLEN, varlen_attention)
AttentionInterface.register(PER_SAMPLE, per_sample_attention)
AttentionInterface.register(CAUSAL, causal_attention)
