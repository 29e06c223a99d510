"""The attention function of Ulysses sequence parallelism, in the form of transformers' AttentionInterface.

Legend: B sequences, N query heads, M key/value heads, s tokens of this rank's shard, S tokens of the full sequence,
H head dimension; n, m heads of this rank.
"""

import math
import sys
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

from ..compat.transformers_private import ATTENTION_FIELD
from ..errors import ModelError
from ..utils.model_structure import has_sliding_window
from .ulysses import ATTENTION, UlyssesBatch, all_to_all


def ulysses_attention(
    module: torch.nn.Module,
    query_BNsH: torch.Tensor,
    key_BMsH: torch.Tensor,
    value_BMsH: torch.Tensor,
    attention_mask: None,
    ulysses_batch: UlyssesBatch | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Return the attention [B, s, N, H] of this rank's shard, computed over full sequences.

    Raises:
        ModelError: The model does not pass `ulysses_batch` on, or its attention takes tensors that are not sharded.
    """
    _check(module, ulysses_batch, sliding_window, kwargs)
    group, heads, kv_heads = ulysses_batch.group, query_BNsH.shape[1], key_BMsH.shape[1]
    # With fewer key/value heads than ranks, several ranks use the same one.
    repeats = math.lcm(kv_heads, group.size) // kv_heads
    if repeats > 1:
        key_BMsH, value_BMsH = (t.repeat_interleave(repeats, 1) for t in (key_BMsH, value_BMsH))
    query_BnSH, key_BmSH, value_BmSH = (
        all_to_all(t, split_dim=1, concat_dim=2, group=group.group) for t in (query_BNsH, key_BMsH, value_BMsH)
    )
    config = _Overlay(module.config, **{ATTENTION_FIELD: group.inner_attention}, sliding_window=sliding_window)
    layer = _Overlay(module, config=config, num_key_value_groups=heads // (kv_heads * repeats))
    kwargs['position_ids'] = ulysses_batch.positions_BS
    out_BSnH, _ = _attention_function(module, group.inner_attention)(
        layer,
        query_BnSH,
        key_BmSH,
        value_BmSH,
        _mask(ulysses_batch, config, query_BnSH),
        sliding_window=sliding_window,
        **kwargs,
    )
    return all_to_all(out_BSnH, split_dim=1, concat_dim=2, group=group.group).contiguous(), None


def _check(module: torch.nn.Module, batch: UlyssesBatch | None, window: int | None, kwargs: dict[str, Any]) -> None:
    """Refuse a layer that would be trained wrongly; `kwargs` are passed on to the inner attention as they are."""
    unsharded = [n for n, v in kwargs.items() if torch.is_tensor(v) and n not in ('position_ids', 'cache_position')]
    if batch is None:
        reason = 'does not pass the arguments of sequence parallelism on to its attention'
    elif unsharded:
        reason = f'attends with {unsharded[0]}, which is not sharded by heads'
    elif has_sliding_window(module) and window is None:
        reason = 'does not pass its sliding window on to its attention'
    else:
        return
    raise ModelError(f'{type(module).__name__} {reason}; set strategy.sequence_parallel_size=1')


class _Overlay:
    """An object with some attributes replaced."""

    def __init__(self, wrapped: Any, **attributes: Any) -> None:
        self.__dict__.update(attributes, _wrapped=wrapped)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)


def _attention_function(module: torch.nn.Module, name: str) -> Any:
    """Return the attention function `name`; each model file of transformers has an eager one of its own."""
    eager = getattr(sys.modules[type(module).__module__], 'eager_attention_forward', None)
    return AttentionInterface().get_interface(name, eager)


def _mask(batch: UlyssesBatch, config: Any, query_BnSH: torch.Tensor) -> Any:
    """Return the mask over full sequences, in the form of the inner attention."""
    window = config.sliding_window
    if window not in batch.masks:
        create_mask = create_causal_mask if window is None else create_sliding_window_causal_mask
        embeds_BS0 = query_BnSH.new_empty(*batch.positions_BS.shape, 0)  # only its shape, type and device are read
        batch.masks[window] = create_mask(
            config=config,
            inputs_embeds=embeds_BS0,
            attention_mask=None,
            past_key_values=None,
            position_ids=batch.positions_BS,
        )
    return batch.masks[window]


AttentionInterface.register(ATTENTION, ulysses_attention)
