"""Baichuan 13B: ALiBi attention (a bias that is linear in the distance), on the layers of SmolLM3.

Head i adds slope_i * (key position - query position) to its scores. Softmax does not change if a constant is added to
all scores of a query, so indices in the sequence replace position ids: with left padding, a KV cache, and packed
samples whose positions restart (the mask separates them) the differences between keys are the same.

Legend: B sequences, N heads, Q queries, K keys, H head dimension.
"""

import math
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    SmolLM3ForCausalLM,
)
from transformers.masking_utils import eager_mask

from ...compat.transformers_private import attention_of, set_attention_of
from ...errors import ModelError
from .alibi_config import BaichuanAlibiConfig

ATTENTION = 'xtune_alibi'
# 'sdpa' is the default of presets and transformers; the ALiBi attention calls SDPA.
_ACCEPTED = (None, 'sdpa', ATTENTION)


def slopes(heads: int) -> list[float]:
    """Return the ALiBi slope of each head, for any number of heads."""
    power = 2 ** math.floor(math.log2(heads))
    first = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    between = [2 ** (-8 * (i + 1) / (2 * power)) for i in range(0, 2 * (heads - power), 2)]
    return first + between


@lru_cache(maxsize=16)
def _slopes_N(heads: int, device: torch.device) -> torch.Tensor:
    return torch.tensor(slopes(heads), dtype=torch.float32, device=device)


def alibi_attention(
    module: torch.nn.Module,
    query_BNQH: torch.Tensor,
    key_BNKH: torch.Tensor,
    value_BNKH: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Return attention [B, Q, N, H] under the additive mask [B or 1, 1, Q, K] plus the ALiBi bias."""
    queries, keys = query_BNQH.shape[2], key_BNKH.shape[2]
    # Relative to the query, not to the first key: near keys matter most, and small distances are exact even in bf16.
    index_K = torch.arange(keys, device=query_BNQH.device)
    distance_QK = (index_K[None] - index_K[keys - queries :, None]).float()
    bias_NQK = _slopes_N(query_BNQH.shape[1], query_BNQH.device)[:, None, None] * distance_QK
    masked = attention_mask[..., :keys] < 0
    bias = bias_NQK.to(query_BNQH.dtype)[None].masked_fill(masked, torch.finfo(query_BNQH.dtype).min)
    out = F.scaled_dot_product_attention(
        query_BNQH, key_BNKH, value_BNKH, attn_mask=bias, dropout_p=dropout, scale=scaling
    )
    return out.transpose(1, 2).contiguous(), None


class BaichuanAlibiForCausalLM(SmolLM3ForCausalLM):
    """Baichuan 13B and Baichuan 2 13B."""

    config_class = BaichuanAlibiConfig

    def __init__(self, config: BaichuanAlibiConfig) -> None:
        _check(attention_of(config))
        set_attention_of(config, ATTENTION)
        super().__init__(config)

    def set_attn_implementation(self, attn_implementation: str | dict, *args: Any, **kwargs: Any) -> None:
        """Refuse attention implementations without ALiBi.

        Raises:
            ModelError: Another implementation is requested.
        """
        _check(attn_implementation)


def _check(implementation: str | dict | None) -> None:
    if implementation not in _ACCEPTED:
        raise ModelError(
            f'attn_implementation={implementation!r} does not support ALiBi, which Baichuan 13B needs; leave it out, '
            "or set 'sdpa'"
        )


def _register() -> None:
    AttentionInterface.register(ATTENTION, alibi_attention)
    AttentionMaskInterface.register(ATTENTION, eager_mask)
    AutoModelForCausalLM.register(BaichuanAlibiConfig, BaichuanAlibiForCausalLM)


_register()
