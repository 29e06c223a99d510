"""What `target_modules='all-linear'` means for a mixture of experts: linear layers, and no experts.

transformers 5 keeps the experts of a layer in one tensor. peft takes the names that they had before, wherever it finds
one, for these tensors: an adapter would then reach every expert and the router, at several times the size, and
lora_dropout is refused there. So layers with such a name (those of shared experts too) are left out.
"""

import torch

# Names of the linear layers of experts and routers before transformers 5, which peft maps to their tensors now.
_NAMES = ('gate', 'gate_proj', 'up_proj', 'down_proj', 'w1', 'w2', 'w3')


def expert_tensors(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return the tensors [experts, out, in] of `model`, which no quantisation of linear layers reaches."""
    return [p for name, p in model.named_parameters() if p.dim() == 3 and '.experts.' in name]


def has_experts(model: torch.nn.Module) -> bool:
    """Tell whether `model` keeps experts in tensors [experts, out, in]."""
    return bool(expert_tensors(model))


def spared_names() -> set[str]:
    """Return the last names of linear layers that 'all-linear' leaves out in a model with such tensors."""
    return set(_NAMES)
