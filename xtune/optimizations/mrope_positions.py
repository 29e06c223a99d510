"""Positions of packed samples for models with multimodal RoPE (M-RoPE), such as Qwen2.5-VL.

Such a model has a position for each axis (time, height, width); for text they are all the same. Given positions [B, S],
most of these models of transformers use them for RoPE alone, and build the attention mask as if there were one sample.
They find the borders of samples only in positions [1 + axes, B, S], whose first is for the mask.
"""

from functools import partial
from typing import Any

import torch

from ..utils.language_model import base_of


def give_each_axis_positions(llm: torch.nn.Module) -> None:
    """Let the language model of `llm` take positions [B, S] as those of text on each axis, and of samples.

    It stays as it is if it has ordinary RoPE.
    """
    base = base_of(llm)
    config = getattr(base, 'config', None)
    rope = getattr(config.get_text_config(), 'rope_parameters', None) if hasattr(config, 'get_text_config') else None
    sections = (rope or {}).get('mrope_section')
    if sections:
        hook = partial(_on_each_axis, axes=len(sections))
        base.get_decoder().register_forward_pre_hook(hook, with_kwargs=True)


def _on_each_axis(
    _model: torch.nn.Module, args: tuple[Any, ...], given: dict[str, Any], axes: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    positions = given.get('position_ids')
    if positions is not None and positions.dim() == 2:
        given = {**given, 'position_ids': positions[None].expand(1 + axes, -1, -1)}
    return args, given
