"""The attention of sequence parallelism, as transformers' AttentionInterface takes it.

Legend: B sequences, N heads, M key heads, s columns of this process, S columns of the row, H head width; n heads here.
"""

import math
import sys
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

from ..errors import ModelError
from ..ops.varlen_attention import slides
from .ulysses import ATTENTION, Row, exchange


def attend(
    module: torch.nn.Module,
    query_BNsH: torch.Tensor,
    key_BMsH: torch.Tensor,
    value_BMsH: torch.Tensor,
    attention_mask: None,
    team_row: Row | None = None,
    sliding_window: int | None = None,
    **given: Any,
) -> tuple[torch.Tensor, None]:
    """Return the attention [B, s, N, H] of this process' columns, computed over whole rows.

    Raises:
        ModelError: The model does not say which row this is, or its attention takes more than can be exchanged.
    """
    _check(module, team_row, sliding_window, given)
    team, heads, key_heads = team_row.team, query_BNsH.shape[1], key_BMsH.shape[1]
    # With fewer key heads than processes several processes take the same one.
    times = math.lcm(key_heads, team.size) // key_heads
    key_BMsH, value_BMsH = (t.repeat_interleave(times, 1) if times > 1 else t for t in (key_BMsH, value_BMsH))
    query_BnSH, key_BmSH, value_BmSH = (
        exchange(t, split=1, join=2, group=team.group) for t in (query_BNsH, key_BMsH, value_BMsH)
    )
    config = Seen(module.config, _attn_implementation=team.inner, sliding_window=sliding_window)
    seen = Seen(module, config=config, num_key_value_groups=heads // (key_heads * times))
    given['position_ids'] = team_row.positions_BS
    out_BSnH, _ = _function(module, team.inner)(
        seen,
        query_BnSH,
        key_BmSH,
        value_BmSH,
        _mask(team_row, config, query_BnSH),
        sliding_window=sliding_window,
        **given,
    )
    return exchange(out_BSnH, split=1, join=2, group=team.group).contiguous(), None


def _check(module: torch.nn.Module, row: Row | None, window: int | None, given: dict[str, Any]) -> None:
    """Refuse what would train wrongly; `given` are arguments that the inner attention takes as they are."""
    more = [n for n, v in given.items() if torch.is_tensor(v) and n not in ('position_ids', 'cache_position')]
    if row is None:
        reason = 'does not hand on the arguments that splitting rows needs'
    elif more:
        reason = f'attends with {more[0]}, which is not split by heads'
    elif slides(module) and window is None:
        reason = 'does not say how wide its sliding window is'
    else:
        return
    raise ModelError(f'{type(module).__name__} {reason}; set strategy.sequence_parallel_size=1')


class Seen:
    """`thing` as the inner attention is to see it: with some attributes of its own."""

    def __init__(self, thing: Any, **own: Any) -> None:
        self.__dict__.update(own, _thing=thing)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._thing, name)


def _function(module: torch.nn.Module, name: str) -> Any:
    """Return the attention function `name`; each model has an eager one of its own."""
    eager = getattr(sys.modules[type(module).__module__], 'eager_attention_forward', None)
    return AttentionInterface().get_interface(name, eager)


def _mask(row: Row, config: Any, query_BnSH: torch.Tensor) -> Any:
    """Return the mask over whole rows, in the form that the inner attention takes."""
    window = config.sliding_window
    if window not in row.masks:
        make = create_causal_mask if window is None else create_sliding_window_causal_mask
        rows_BS0 = query_BnSH.new_empty(*row.positions_BS.shape, 0)  # shape, type and device are all it reads
        row.masks[window] = make(
            config=config,
            inputs_embeds=rows_BS0,
            attention_mask=None,
            past_key_values=None,
            position_ids=row.positions_BS,
        )
    return row.masks[window]


AttentionInterface.register(ATTENTION, attend)
