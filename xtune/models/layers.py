"""The decoder layers of a model, and which of them compute their activations again in the backward pass."""

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from ..errors import ModelError


def layers_of(llm: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the decoder layers of `llm`, in order.

    Raises:
        ModelError: It has no list of layers.
    """
    for module in llm.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) and any(True for _ in module.parameters()):
            return list(module)
    raise ModelError(f'{type(llm).__name__} has no list of layers that could be spread; use strategy ddp or zero2')


def recompute_activations(model: PreTrainedModel | PeftModel, count: int | None = None) -> None:
    """Let layers compute their activations again in the backward pass instead of keeping them.

    Args:
        model: The model.
        count: How many, the first ones: the backward pass has freed what the others keep when it comes to them. None:
            all.

    Raises:
        ModelError: It has fewer layers.
    """
    if hasattr(model, 'activation_checkpointing_enable'):  # its name from transformers 5.20 on
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={'use_reentrant': False})
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={'use_reentrant': False})
    if count is None:
        return
    layers = layers_of(model)
    if count > len(layers):
        raise ModelError(f'checkpointing={count}, but the model has {len(layers)} layers: give {len(layers)} or all')
    for layer in layers[count:]:
        for module in layer.modules():
            if getattr(module, 'gradient_checkpointing', False):
                module.gradient_checkpointing = False
