"""Meta models for planning: of all layers of a model, or of some of them."""

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ..config.wire import Job
from ..methods.meta_model import build_meta_model
from ..utils.model_structure import layers_of
from .attention import counted_attention

Kind = tuple


def planned_meta_model(job: Job, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """Return the base model of `job` on the meta device, to be run without values, with attention that allows this.

    Raises:
        ModelError: It cannot be built, or its quantization is not supported.
    """
    return build_meta_model(job.model, config, dtype, counted_attention(job, config, dtype))


def kinds(model: PreTrainedModel) -> list[Kind]:
    """Return for each layer what tells it from layers that cost something else: its modules' types and shapes."""
    types = getattr(model.config.get_text_config(), 'layer_types', None) or ()
    found = []
    for number, layer in enumerate(layers_of(model)):
        shapes = tuple((name, tuple(p.shape)) for name, p in layer.named_parameters())
        found.append((types[number] if number < len(types) else None, type(layer).__name__, shapes))
    return found


def keep_layers(model: PreTrainedModel, chosen: list[int]) -> None:
    """Leave only the layers with the numbers `chosen` in a frame, in that order."""
    count = len(layers_of(model))
    for module in model.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.ModuleList) and list(child) == layers_of(model):
                setattr(module, name, torch.nn.ModuleList([child[number] for number in chosen]))
                _keep_in_config(model.config.get_text_config(), count, chosen)
                return


def _keep_in_config(config: PreTrainedConfig, count: int, chosen: list[int]) -> None:
    types = getattr(config, 'layer_types', None)
    config.num_hidden_layers = len(chosen)
    if types and len(types) == count:
        config.layer_types = [types[number] for number in chosen]
