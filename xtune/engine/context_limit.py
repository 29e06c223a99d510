"""The maximum sequence length of models with learned position embeddings, which fail on longer sequences.

It is measured on a small random copy of the model with a shorter embedding, and so includes offsets: OPT has two more
rows than positions, RoBERTa uses two rows fewer.
"""

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ..errors import ModelError
from ..models.loading.config_checks import context_length
from ..models.small_copy import small_copy

# Largest difference between max_position_embeddings and the number of usable positions.
_MAX_OFFSET = 8


def check_length(config: PreTrainedConfig, max_length: int) -> None:
    """Refuse sequences of `max_length` tokens if the model of `config` has fewer position embeddings.

    Raises:
        ModelError: The model has fewer.
    """
    limit = context_length(config)
    if limit is None or max_length <= limit - _MAX_OFFSET:
        return
    positions = position_embeddings(config)
    if positions is not None and max_length > positions:
        raise ModelError(
            f'max_length={max_length}, but the model has position embeddings for {positions} tokens and fails on '
            f'longer sequences: set max_length={positions} or less'
        )


def position_embeddings(config: PreTrainedConfig) -> int | None:
    """Return the number of usable learned position embeddings of the model of `config`; None if it has none."""
    full = getattr(config.get_text_config(), 'max_position_embeddings', None)
    copy = small_copy(config, torch.device('cpu'))
    small = getattr(copy.config, 'max_position_embeddings', None) if copy is not None else None
    if not isinstance(full, int) or not isinstance(small, int) or _accepts(copy, small + _MAX_OFFSET):
        return None
    longest = next((n for n in range(small + _MAX_OFFSET - 1, small - _MAX_OFFSET, -1) if _accepts(copy, n)), None)
    return None if longest is None else full - small + longest


@torch.no_grad()
def _accepts(model: PreTrainedModel, length: int) -> bool:
    """Return whether a forward pass of `model` works on a sequence of `length` tokens."""
    ids_BS = torch.arange(length)[None] % 50 + 10  # no special tokens
    try:
        model(input_ids=ids_BS, use_cache=False)
    except (IndexError, RuntimeError, ValueError):
        return False
    return True
