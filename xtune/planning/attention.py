"""Attention for fake tensors that allocates what attention on a GPU allocates.

transformers treats FakeTensors as the tracing of a graph and then creates a mask in every run, which costs memory that
a real run does not take. Here a mask is created only where a real run creates it: for samples packed into one sequence,
and for layers with a window shorter than the sequence, unless the varlen kernel handles both.
"""

from functools import partial
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ..models.legacy.alibi_config import BaichuanAlibiConfig
from ..models.loading.config_checks import takes_sdpa
from ..ops.varlen_attention import VARLEN
from ..optimizations.packed_attention import choose_attention

_CAUSAL, _PACKED, _VARLEN = 'xtune_fake_causal', 'xtune_fake_packed', 'xtune_fake_varlen'


def _mask(*args: Any, packed: bool, allow_is_causal_skip: bool = True, **options: Any) -> Any:
    return sdpa_mask(*args, allow_is_causal_skip=not packed, **options)


for _name in (_CAUSAL, _PACKED):
    AttentionInterface.register(_name, sdpa_attention_forward)
    AttentionMaskInterface.register(_name, partial(_mask, packed=_name == _PACKED))
AttentionInterface.register(_VARLEN, sdpa_attention_forward)  # has no mask


def attention_for_fake_tensors(
    config: PreTrainedConfig, dtype: torch.dtype, requested: str | None, max_length: int, packed: bool, varlen: bool
) -> str | None:
    """Return the attention implementation to count a run with; None: the one that is `requested`, or the default.

    Flash kernels are counted as those of torch.

    Args:
        config: The config of the base model.
        dtype: The compute type.
        requested: `attn_implementation` of the section `llm`.
        max_length: Tokens of a sequence.
        packed: Whether sequences hold several samples that are kept apart.
        varlen: Whether the run may use the varlen kernel.
    """
    if isinstance(config, BaichuanAlibiConfig):  # its model supports one implementation only
        return None
    if requested is not None and requested != 'sdpa' and 'flash' not in requested:
        return None
    if requested is None and not takes_sdpa(config):
        return None
    by_sdpa = requested in (None, 'sdpa')
    if by_sdpa and varlen and choose_attention(config, 'sdpa', dtype, 'cuda', max_length, packed) == VARLEN:
        return _VARLEN
    return _PACKED if packed and by_sdpa else _CAUSAL
