"""`target_modules='all-linear'` for mixture-of-experts models: linear layers without experts.

transformers 5 stores the experts of a layer in one tensor. peft converts the names that their layers had before to
these tensors: an adapter would then cover every expert and the router, at several times the size, and peft does not
support lora_dropout there. So layers with such a name (also those of shared experts) are excluded.
"""

import torch

# Names of the linear layers of experts and routers before transformers 5, which peft converts to tensors.
_NAMES = ('gate', 'gate_proj', 'up_proj', 'down_proj', 'w1', 'w2', 'w3')


def expert_tensors(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return the tensors [experts, out, in] of `model`, which are not quantized with its linear layers."""
    return [p for name, p in model.named_parameters() if p.dim() == 3 and '.experts.' in name]


def has_experts(model: torch.nn.Module) -> bool:
    """Return whether `model` stores experts in tensors [experts, out, in]."""
    return bool(expert_tensors(model))


def expert_layer_names() -> set[str]:
    """Return the last names of linear layers that 'all-linear' excludes in a model with such tensors."""
    return set(_NAMES)
