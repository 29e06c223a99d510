"""Attention over packed rows that knows where samples begin, instead of a mask [B, 1, S, S] that says it.

Three functions, as transformers' AttentionInterface takes them. `KERNEL` is the flash kernel for rows of many lengths
that comes with torch: CUDA, bf16 and fp16. `LOOP` calls scaled_dot_product_attention once a sample: for CPUs, where it
takes half the time of a mask at 8 samples in 2048 tokens. `ROWS` is for rows of one sample, all of which each token may
see. No mask function is registered for them, so transformers makes no mask and never looks for samples in position_ids,
for which the process would wait for a GPU.

Legend: B rows, N heads, M key heads, S tokens of a row, T = B * S, H head width, C borders.
"""

import inspect
import math
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ..errors import ModelError

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch < 2.10
    varlen_attn = None

KERNEL, LOOP, ROWS = 'xtune_varlen', 'xtune_segments', 'xtune_rows'
NEEDS_WHOLE_ROWS = (
    'the model attends as training needs it: generate, and give masks, inside `with runner.model.whole_rows():`'
)
# Arguments of layers that say nothing else than the borders of samples do.
KNOWN = ('position_ids', 'cache_position', 'seq_idx', 'cu_seq_lens_q', 'cu_seq_lens_k')
# What the kernel of the installed torch takes: windows, scale and shared key heads came after torch 2.10.
TAKES = frozenset(inspect.signature(varlen_attn).parameters) if varlen_attn else frozenset()


def kernel_attention(
    module: torch.nn.Module,
    query_BNSH: torch.Tensor,
    key_BMSH: torch.Tensor,
    value_BMSH: torch.Tensor,
    attention_mask: None,
    segment_borders: torch.Tensor | None = None,
    longest_segment: int | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **given: Any,
) -> tuple[torch.Tensor, None]:
    """Return the causal attention [B, S, N, H] of each sample over itself.

    Args:
        module: The attention layer.
        query_BNSH, key_BMSH, value_BMSH: What it attends with.
        attention_mask: None.
        segment_borders: int32 [C], where samples begin among the T tokens, and T at the end, perhaps several times.
        longest_segment: Tokens of the longest sample, at least.
        scaling: What scores are multiplied by; default H ** -0.5.
        sliding_window: How many tokens a token sees, itself among them; default all.
        given: What else the layer passes.

    Raises:
        ModelError: The layer asks for something that this attention cannot do.
    """
    _check(module, attention_mask, sliding_window, given, segment_borders)
    rows, heads, width, size = query_BNSH.shape
    scale = size**-0.5 if scaling is None else scaling
    # Autocast leaves queries and keys in float32 where rotary embeddings are.
    query_TNH, key_TMH, value_TMH = (
        t.to(value_BMSH.dtype).transpose(1, 2).flatten(0, 1).contiguous() for t in (query_BNSH, key_BMSH, value_BMSH)
    )
    more: dict[str, Any] = {}
    if 'scale' in TAKES:
        more['scale'] = scale
    else:
        query_TNH = query_TNH * (scale * math.sqrt(size))
    if 'enable_gqa' in TAKES:
        more['enable_gqa'] = key_TMH.shape[1] != heads
    elif key_TMH.shape[1] != heads:
        key_TMH, value_TMH = (t.repeat_interleave(heads // t.shape[1], 1) for t in (key_TMH, value_TMH))
    if 'window_size' in TAKES:
        narrow = sliding_window is not None and sliding_window < width
        more['window_size'] = (sliding_window - 1 if narrow else -1, 0)
    else:
        more['is_causal'] = True
    borders_C, longest = segment_borders, longest_segment
    out_TNH = varlen_attn(query_TNH, key_TMH, value_TMH, borders_C, borders_C, longest, longest, **more)
    return out_TNH.unflatten(0, (rows, width)), None


def loop_attention(
    module: torch.nn.Module,
    query_BNSH: torch.Tensor,
    key_BMSH: torch.Tensor,
    value_BMSH: torch.Tensor,
    attention_mask: None,
    segment_borders: torch.Tensor | None = None,
    longest_segment: int | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **given: Any,
) -> tuple[torch.Tensor, None]:
    """Do the same, a sample at a time; the borders are on a CPU."""
    _check(module, attention_mask, sliding_window, given, segment_borders)
    rows, heads, width, _ = query_BNSH.shape
    shared = key_BMSH.shape[1] != heads
    borders, parts = segment_borders.tolist(), []
    for start, end in zip(borders, borders[1:], strict=False):
        if start == end:
            continue
        row, at = divmod(start, width)
        own = slice(row, row + 1), slice(None), slice(at, at + end - start)
        narrow = sliding_window is not None and sliding_window < end - start
        part_1NsH = scaled_dot_product_attention(
            query_BNSH[own],
            key_BMSH[own],
            value_BMSH[own],
            attn_mask=_band(end - start, sliding_window, query_BNSH.device) if narrow else None,
            is_causal=not narrow,
            scale=scaling,
            enable_gqa=shared,
        )
        parts.append(part_1NsH.transpose(1, 2))
    return torch.cat(parts, 1).view(rows, width, heads, -1), None


def rows_attention(
    module: torch.nn.Module,
    query_BNSH: torch.Tensor,
    key_BMSH: torch.Tensor,
    value_BMSH: torch.Tensor,
    attention_mask: None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **given: Any,
) -> tuple[torch.Tensor, None]:
    """Return the causal attention of whole rows; their padding, if any, stands at the end."""
    _check(module, attention_mask, sliding_window, given, borders=())
    width = query_BNSH.shape[2]
    if sliding_window is not None and sliding_window < width:
        raise ModelError(
            f'rows of {width} tokens are wider than the sliding window of {sliding_window}: '
            'set speed.varlen_attention=False'
        )
    if key_BMSH.shape[2] != width:
        raise ModelError(NEEDS_WHOLE_ROWS)
    return sdpa_attention_forward(module, query_BNSH, key_BMSH, value_BMSH, None, scaling=scaling, is_causal=True)


def _band(size: int, window: int, device: torch.device) -> torch.Tensor:
    """Return the mask [s, s] of a sample whose tokens see `window` tokens each."""
    return torch.ones(size, size, dtype=torch.bool, device=device).tril().triu(1 - window)


def _check(module: torch.nn.Module, mask: Any, window: int | None, given: dict[str, Any], borders: Any) -> None:
    """Refuse what would train wrongly; `given` are arguments that no function reads."""
    more = [n for n, v in given.items() if torch.is_tensor(v) and n not in KNOWN]
    if mask is not None:
        reason = 'makes a mask of its own'
    elif borders is None:
        reason = 'does not hand on the arguments that tell samples apart'
    elif more or given.get('softcap') is not None:
        reason = f'attends with {more[0] if more else "softcap"}'
    elif given.get('dropout'):
        reason = 'has dropout in its attention'
    # Not while compiling: reading the number of a layer would compile each layer for itself.
    elif window is None and not torch.compiler.is_compiling() and slides(module):
        reason = 'does not say how wide its sliding window is'
    else:
        return
    raise ModelError(f'{type(module).__name__} {reason}; set speed.varlen_attention=False')


def slides(module: torch.nn.Module) -> bool:
    """Return whether an attention layer sees a window of the tokens before each."""
    kinds, index = getattr(module.config, 'layer_types', None), getattr(module, 'layer_idx', None)
    if kinds and index is not None:
        return kinds[index] == 'sliding_attention'
    return getattr(module.config, 'sliding_window', None) is not None


AttentionInterface.register(KERNEL, kernel_attention)
AttentionInterface.register(LOOP, loop_attention)
AttentionInterface.register(ROWS, rows_attention)
