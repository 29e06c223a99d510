"""Which linear layers get LoRA: what 'all-linear' means here, and what no adapter fits on.

Left out of 'all-linear', beside the output layer and what experts.py leaves out:

- routers, which choose experts: linear layers with one output for each expert that are named router or gate;
- layers that are linear by their class only, as the router of Llama 4: what they return is no tensor of their width;
- what peft refuses: `out_proj` in Mamba models, whose kernels read its weight without calling it.
"""

import re
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from ..errors import ModelError
from ..utils.experts import has_experts, spared_names
from ..utils.language_model import joined_exclusions

# peft refuses these names in models of these types.
REFUSED = ('out_proj', 'conv1d')
REFUSED_TYPES = ('falcon_h1', 'falcon_mamba', 'mamba', 'mamba2', 'nemotron_h')
# Config fields with the number of experts.
_COUNTS = ('num_experts', 'num_local_experts', 'n_routed_experts', 'moe_num_experts')


def choose_targets(model: Any, config: Any) -> str | None:
    """Let 'all-linear' of the peft config name the layers that it means in `model`; return what else is to be said.

    Raises:
        ModelError: The config names a layer that no adapter fits on.
    """
    wanted = getattr(config, 'target_modules', None)
    if wanted != 'all-linear':
        refuse_targets(model, wanted)
        return None
    head = model.get_output_embeddings()
    linear = {n: m for n, m in model.named_modules() if isinstance(m, (torch.nn.Linear, Conv1D)) and m is not head}
    routers = {name for name, module in linear.items() if is_router(model, name, module) or not is_linear(module)}
    spared = spared_names() if has_experts(model) else set()
    refused = {name for name in linear if _refused(model, name)}
    if not (routers or spared or refused):
        return None
    kept = {name for name in linear if name not in routers | refused and _last(name) not in spared}
    config.target_modules = {_last(name) for name in kept}
    shared = {name for name in routers if _last(name) in config.target_modules}
    if shared:  # their last name is that of others too
        given = getattr(config, 'exclude_modules', None)
        if isinstance(given, str):  # a regular expression
            config.exclude_modules = joined_exclusions(given, '|'.join(map(re.escape, sorted(shared))))
        else:
            config.exclude_modules = sorted({*(given or ()), *shared})
    if not refused:
        return None
    names = ', '.join(sorted({_last(name) for name in refused}))
    return f'all-linear leaves out {names}, which peft does not adapt in {model.config.model_type} models'


def refuse_targets(model: Any, wanted: Any) -> None:
    """Refuse `wanted`, the names or the pattern of peft's target_modules, if it names a layer of `model` that is linear
    by its class only.

    Raises:
        ModelError: It does.
    """
    if not wanted:
        return
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and _matches(name, wanted) and not is_linear(module):
            raise ModelError(
                f'lora.target_modules names `{_last(name)}`, but {type(module).__name__} ({name}) returns no tensor '
                f'that an adapter could be added to: take `{_last(name)}` out of lora.target_modules'
            )


def is_router(model: Any, name: str, module: torch.nn.Module) -> bool:
    """Tell whether the linear layer `name` of `model` chooses experts."""
    config = model.config.get_text_config()
    counts = {getattr(config, count, None) for count in _COUNTS}
    named = any(part in ('gate', 'router', 'wg') for part in name.split('.')[-2:])
    return named and getattr(module, 'out_features', None) in counts


def is_linear(module: torch.nn.Module) -> bool:
    """Tell whether a layer that is linear by its class returns a tensor of its width, as an adapter needs."""
    kind = type(module)
    overrides = kind.forward is not torch.nn.Linear.forward and isinstance(module, torch.nn.Linear)
    if not overrides or not kind.__module__.startswith(('transformers.models', 'transformers_modules')):
        return True  # quantised layers have a forward of their own, which does the same
    weight = module.weight
    try:
        with torch.no_grad():
            made = kind.forward(module, torch.zeros(1, module.in_features, dtype=weight.dtype, device=weight.device))
    except (RuntimeError, TypeError, ValueError, IndexError):
        return False
    return torch.is_tensor(made) and made.shape == (1, module.out_features)


def _refused(model: Any, name: str) -> bool:
    return getattr(model.config, 'model_type', None) in REFUSED_TYPES and _last(name) in REFUSED


def _last(name: str) -> str:
    return name.rpartition('.')[2]


def _matches(name: str, wanted: Any) -> bool:
    if isinstance(wanted, str):
        return re.fullmatch(wanted, name) is not None
    return any(name == one or name.endswith(f'.{one}') for one in wanted)
