"""Attention of tensors without values, as a GPU would compute it with values.

transformers takes FakeTensors for the tracing of a graph, and then makes a mask of every run, which costs memory that a
real run does not take. Here a mask is made where a real one makes it: for samples packed into one row, and for layers
that see a window shorter than the row, unless the kernel for rows of many samples takes both.
"""

from functools import partial
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ..config.wire import Job
from ..engine.packing_check import is_packed
from ..models.legacy.alibi_config import BaichuanAlibiConfig
from ..models.loading.config_checks import takes_sdpa
from ..ops.varlen_attention import KERNEL
from ..optimizations.packed_attention import chosen

_ALONE, _PACKED, _VARLEN = 'xtune_counted', 'xtune_counted_packed', 'xtune_counted_varlen'


def _mask(*args: Any, packed: bool, allow_is_causal_skip: bool = True, **more: Any) -> Any:
    return sdpa_mask(*args, allow_is_causal_skip=not packed, **more)


for _name in (_ALONE, _PACKED):
    AttentionInterface.register(_name, sdpa_attention_forward)
    AttentionMaskInterface.register(_name, partial(_mask, packed=_name == _PACKED))
AttentionInterface.register(_VARLEN, sdpa_attention_forward)  # and no mask


def counted_attention(job: Job, config: PreTrainedConfig, dtype: torch.dtype) -> str | None:
    """Return the attention to count the run of `job` with; None: its own. Flash kernels count as those of torch."""
    given = job.load_llm.keywords.get('attn_implementation')
    if isinstance(config, BaichuanAlibiConfig):  # its model takes no other
        return None
    if given is not None and given != 'sdpa' and 'flash' not in given:
        return None
    if given is None and not takes_sdpa(config):
        return None
    packed = is_packed(job)
    if given in (None, 'sdpa') and job.speed.varlen_attention:
        if chosen(config, 'sdpa', dtype, 'cuda', job.values.max_length, packed) == KERNEL:
            return _VARLEN
    return _PACKED if packed and given in (None, 'sdpa') else _ALONE
