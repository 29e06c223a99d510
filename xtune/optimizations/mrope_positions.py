"""Positions of packed samples for models with multimodal RoPE (M-RoPE), such as Qwen2.5-VL.

Such a model has one position per axis (time, height, width), all equal for text. Given positions [B, S], most of these
models of transformers use them for RoPE alone, and build the attention mask as for one sample. They find samples only
in positions [1 + axes, B, S], whose first entry is for the mask.
"""

from functools import partial
from typing import Any

import torch

from ..utils.language_model import base_of


def expand_positions_to_axes(llm: torch.nn.Module) -> None:
    """Let the language model of `llm` take positions [B, S]: they are used on each axis and for the mask.

    A model with ordinary RoPE is not changed.
    """
    base = base_of(llm)
    config = getattr(base, 'config', None)
    rope = getattr(config.get_text_config(), 'rope_parameters', None) if hasattr(config, 'get_text_config') else None
    sections = (rope or {}).get('mrope_section')
    if sections:
        hook = partial(_expand_positions, axes=len(sections))
        base.get_decoder().register_forward_pre_hook(hook, with_kwargs=True)


def _expand_positions(
    _model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], axes: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    positions = kwargs.get('position_ids')
    if positions is not None and positions.dim() == 2:
        kwargs = {**kwargs, 'position_ids': positions[None].expand(1 + axes, -1, -1)}
    return args, kwargs
