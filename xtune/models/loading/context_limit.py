"""How many tokens a model with a table of position embeddings takes: longer rows fail, where RoPE only gets worse.

A small copy of the model is asked, whose table is as much shorter as its config says. So offsets count too: OPT has two
rows more than positions, RoBERTa uses two rows fewer.
"""

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ...errors import ModelError
from ..small_copy import small_copy
from .config_checks import made_for

# Rows of a table that are no positions, at most.
_SPARE = 8


def check_length(config: PreTrainedConfig, max_length: int) -> None:
    """Refuse rows of `max_length` tokens if the model of `config` has positions for fewer.

    Raises:
        ModelError: It has.
    """
    known = made_for(config)
    if known is None or max_length <= known - _SPARE:
        return
    limit = positions(config)
    if limit is not None and max_length > limit:
        raise ModelError(
            f'max_length={max_length}, but the model has a table of positions for {limit} tokens, and fails on longer '
            f'rows: set max_length={limit} or less'
        )


def positions(config: PreTrainedConfig) -> int | None:
    """Return for how many tokens the model of `config` has position embeddings; None: it has no table of them."""
    full = getattr(config.get_text_config(), 'max_position_embeddings', None)
    copy = small_copy(config, torch.device('cpu'))
    own = getattr(copy.config, 'max_position_embeddings', None) if copy is not None else None
    if not isinstance(full, int) or not isinstance(own, int) or _takes(copy, own + _SPARE):
        return None
    longest = next((n for n in range(own + _SPARE - 1, own - _SPARE, -1) if _takes(copy, n)), None)
    return None if longest is None else full - own + longest


@torch.no_grad()
def _takes(model: PreTrainedModel, length: int) -> bool:
    """Tell whether `model` computes a row of `length` tokens."""
    ids_BS = torch.arange(length)[None] % 50 + 10  # no special tokens
    try:
        model(input_ids=ids_BS, use_cache=False)
    except (IndexError, RuntimeError, ValueError):
        return False
    return True
