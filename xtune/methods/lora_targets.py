"""Resolve `target_modules='all-linear'`, and refuse targets that cannot have an adapter.

'all-linear' excludes lm_head, the projections of experts, and:

- routers: linear layers with one output per expert that are named router or gate;
- subclasses of Linear that do not return a tensor of out_features, such as the router of Llama 4;
- layers that peft refuses: `out_proj` of Mamba models, whose kernels read its weight without calling the module.
"""

import re
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from ..errors import ModelError
from ..utils.experts import expert_layer_names, has_experts
from ..utils.language_model import combined_exclusions

# peft refuses these module names in models of these types.
REFUSED_BY_PEFT = ('out_proj', 'conv1d')
REFUSED_IN_TYPES = ('falcon_h1', 'falcon_mamba', 'mamba', 'mamba2', 'nemotron_h')
# Config fields with the number of experts.
_EXPERT_COUNTS = ('num_experts', 'num_local_experts', 'n_routed_experts', 'moe_num_experts')


def resolve_targets(model: Any, config: Any) -> str | None:
    """Replace 'all-linear' in the peft config by the names of layers of `model`; return a note for the user, or None.

    Raises:
        ModelError: The config names a layer that cannot have an adapter.
    """
    targets = getattr(config, 'target_modules', None)
    if targets != 'all-linear':
        refuse_targets(model, targets)
        return None
    lm_head = model.get_output_embeddings()
    linear = {n: m for n, m in model.named_modules() if isinstance(m, (torch.nn.Linear, Conv1D)) and m is not lm_head}
    routers = {name for name, module in linear.items() if is_router(model, name, module) or not is_linear(module)}
    expert_names = expert_layer_names() if has_experts(model) else set()
    refused = {name for name in linear if _is_refused_by_peft(model, name)}
    if not (routers or expert_names or refused):
        return None
    adapted = {name for name in linear if name not in routers | refused and _last(name) not in expert_names}
    config.target_modules = {_last(name) for name in adapted}
    ambiguous = {name for name in routers if _last(name) in config.target_modules}
    if ambiguous:  # other layers have the same last name
        exclude_modules = getattr(config, 'exclude_modules', None)
        if isinstance(exclude_modules, str):  # a regular expression
            pattern = '|'.join(map(re.escape, sorted(ambiguous)))
            config.exclude_modules = combined_exclusions(exclude_modules, pattern)
        else:
            config.exclude_modules = sorted({*(exclude_modules or ()), *ambiguous})
    if not refused:
        return None
    names = ', '.join(sorted({_last(name) for name in refused}))
    return f'all-linear excludes {names}, which peft does not adapt in {model.config.model_type} models'


def refuse_targets(model: Any, targets: Any) -> None:
    """Refuse `targets`, peft's target_modules, if they match a Linear subclass of `model` that returns no such tensor.

    Raises:
        ModelError: They match one.
    """
    if not targets:
        return
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and _matches(name, targets) and not is_linear(module):
            raise ModelError(
                f'lora.target_modules names `{_last(name)}`, but {type(module).__name__} ({name}) does not return a '
                f'tensor that an adapter can be added to: remove `{_last(name)}` from lora.target_modules'
            )


def is_router(model: Any, name: str, module: torch.nn.Module) -> bool:
    """Return whether the linear layer `name` of `model` is a router of experts."""
    config = model.config.get_text_config()
    expert_counts = {getattr(config, field, None) for field in _EXPERT_COUNTS}
    has_router_name = any(part in ('gate', 'router', 'wg') for part in name.split('.')[-2:])
    return has_router_name and getattr(module, 'out_features', None) in expert_counts


def is_linear(module: torch.nn.Module) -> bool:
    """Return whether a module of a Linear class returns a tensor of out_features, as an adapter requires."""
    cls = type(module)
    overrides = cls.forward is not torch.nn.Linear.forward and isinstance(module, torch.nn.Linear)
    if not overrides or not cls.__module__.startswith(('transformers.models', 'transformers_modules')):
        return True  # quantized layers override forward with the same result
    weight = module.weight
    try:
        with torch.no_grad():
            output = cls.forward(module, torch.zeros(1, module.in_features, dtype=weight.dtype, device=weight.device))
    except (RuntimeError, TypeError, ValueError, IndexError):
        return False
    return torch.is_tensor(output) and output.shape == (1, module.out_features)


def _is_refused_by_peft(model: Any, name: str) -> bool:
    return getattr(model.config, 'model_type', None) in REFUSED_IN_TYPES and _last(name) in REFUSED_BY_PEFT


def _last(name: str) -> str:
    return name.rpartition('.')[2]


def _matches(name: str, targets: Any) -> bool:
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == target or name.endswith(f'.{target}') for target in targets)
