"""Partial models: meta models with some of their layers."""

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ..utils.model_structure import layers_of

LayerType = tuple


def types_of_layers(model: PreTrainedModel) -> list[LayerType]:
    """Return the type of each layer: layers with the same modules and shapes have the same type, and the same cost."""
    attention_types = getattr(model.config.get_text_config(), 'layer_types', None) or ()
    types = []
    for number, layer in enumerate(layers_of(model)):
        shapes = tuple((name, tuple(p.shape)) for name, p in layer.named_parameters())
        attention = attention_types[number] if number < len(attention_types) else None
        types.append((attention, type(layer).__name__, shapes))
    return types


def keep_layers(model: PreTrainedModel, numbers: list[int]) -> None:
    """Remove all layers of a meta model but those with these numbers."""
    layers = layers_of(model)
    for module in model.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.ModuleList) and list(child) == layers:
                setattr(module, name, torch.nn.ModuleList([child[number] for number in numbers]))
                _keep_in_config(model.config.get_text_config(), len(layers), numbers)
                return


def _keep_in_config(config: PreTrainedConfig, count: int, numbers: list[int]) -> None:
    types = getattr(config, 'layer_types', None)
    config.num_hidden_layers = len(numbers)
    if types and len(types) == count:
        config.layer_types = [types[number] for number in numbers]
