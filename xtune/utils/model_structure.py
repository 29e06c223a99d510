"""The decoder layers of a model."""

import torch

from ..errors import ModelError
from .language_model import language_model


def layers_of(llm: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the decoder layers of `llm`, in order: the list of modules of its language model with the most parameters.

    Raises:
        ModelError: It has no list of layers.
    """
    lists = [module for module in language_model(llm).modules() if isinstance(module, torch.nn.ModuleList)]
    sizes = [sum(p.numel() for p in module.parameters()) for module in lists]
    if not any(sizes):
        raise ModelError(
            f'{type(llm).__name__} has no list of layers to spread or to recompute: use strategy ddp or zero2, and '
            "checkpointing='none'"
        )
    return list(lists[sizes.index(max(sizes))])


def has_sliding_window(attention: torch.nn.Module) -> bool:
    """Return whether each token sees a window of the tokens before it in this attention layer."""
    layer_types, index = getattr(attention.config, 'layer_types', None), getattr(attention, 'layer_idx', None)
    if layer_types and index is not None:
        return layer_types[index] == 'sliding_attention'
    return getattr(attention.config, 'sliding_window', None) is not None
