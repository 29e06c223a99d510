"""Multimodal models: separate the language model from modules that text does not reach.

Training uses text only, which never reaches a vision tower. Full fine-tuning freezes such modules, and adapters are
attached to the language model, unless `lora.target_modules` names another module.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from peft import PeftModel

from ..errors import ModelError


def base_of(llm: torch.nn.Module) -> torch.nn.Module:
    """Return the model below an adapter; a model without one is returned as it is."""
    return llm.get_base_model() if isinstance(llm, PeftModel) else llm


def language_model(llm: torch.nn.Module) -> torch.nn.Module:
    """Return the module with the decoder layers for text: the base of `llm` itself, unless it is multimodal."""
    base = base_of(llm)
    config = getattr(base, 'config', None)
    if not hasattr(config, 'get_text_config') or config.get_text_config() is config:
        return base
    return base.get_decoder()


def non_text_modules(llm: torch.nn.Module) -> list[str]:
    """Return the names of the modules and weights of the base of `llm` that text does not reach.

    This includes cross-attention layers: without an image the model skips them.
    """
    base, text = base_of(llm), language_model(llm)
    if text is base:
        return []
    used = {id(module) for module in text.modules()}
    used |= {id(base.get_input_embeddings()), id(base.get_output_embeddings())}
    outside = list(_unused_modules(base, used))
    cross_attention = getattr(base.config.get_text_config(), 'cross_attention_layers', None) or ()
    (prefix,) = (name for name, module in base.named_modules() if module is text)
    return outside + [f'{prefix}.layers.{number}' for number in cross_attention]


def freeze_non_text_modules(llm: torch.nn.Module) -> None:
    """Freeze all weights that text does not reach: an optimizer could apply weight decay even without a gradient."""
    base = base_of(llm)
    for name in non_text_modules(llm):
        for parameter in _parameters(base, name):
            parameter.requires_grad_(False)


def exclude_non_text_modules(model: torch.nn.Module, config: Any) -> None:
    """Add the modules of `model` that text does not reach to the `exclude_modules` of a peft config.

    A regular expression as `target_modules` is left alone. A module stays a target if an entry of the list
    `target_modules` contains its name, as `visual.merger.mlp.0` contains `visual`.
    """
    targets = getattr(config, 'target_modules', None)
    if targets is None or (isinstance(targets, str) and targets != 'all-linear'):
        return
    all_linear = targets == 'all-linear'
    components = set() if all_linear else {component for target in targets for component in target.split('.')}
    excluded = [name for name in non_text_modules(model) if name.rpartition('.')[2] not in components]
    pattern = '|'.join(rf'{re.escape(name)}(\..*)?' for name in excluded)
    if not excluded or not _has_target(model, pattern, None if all_linear else targets):
        return  # peft refuses a pattern that excludes nothing
    config.exclude_modules = combined_exclusions(config.exclude_modules, pattern)


def describe_non_text_modules(llm: torch.nn.Module) -> str | None:
    """Return a line about the modules of `llm` that text does not reach; None if there are none."""
    base = base_of(llm)
    frozen, trained = [], []
    for name in non_text_modules(llm):
        parameters = list(_parameters(base, name))
        (trained if any(p.requires_grad for p in parameters) else frozen).append((name, parameters))
    if not frozen and not trained:
        return None
    millions = sum(_size(p) for _, parameters in frozen for p in parameters) / 1e6
    unchanged = f'{_join(frozen)} ({millions:,.2f} M parameters) stay as in the base' if frozen else ''
    without_gradient = f'adapters on {_join(trained)} get no gradient from text' if trained else ''
    return f'training is on text only: {"; ".join(filter(None, (unchanged, without_gradient)))}'


def refuse_adapter_outside_text(llm: torch.nn.Module) -> None:
    """Refuse an adapter if text reaches none of its modules.

    Raises:
        ModelError: Text reaches none of the trained parameters.
    """
    base, outside = base_of(llm), non_text_modules(llm)
    trained = [name for name, p in base.named_parameters() if p.requires_grad]
    if outside and trained and all(name.startswith(tuple(f'{module}.' for module in outside)) for name in trained):
        raise ModelError(
            f'lora.target_modules names only modules of {_join([(name, []) for name in outside])}, which text does not '
            "reach, so nothing would be trained: name modules of the language model, or 'all-linear'"
        )


def _unused_modules(module: torch.nn.Module, used: set[int], prefix: str = '') -> Iterator[str]:
    """Yield the topmost names below `module` that contain none of the modules in `used` (ids)."""
    for name, _ in module.named_parameters(recurse=False):
        yield prefix + name
    for name, child in module.named_children():
        if id(child) in used:
            continue
        if any(id(inner) in used for inner in child.modules()):
            yield from _unused_modules(child, used, f'{prefix}{name}.')
        elif any(True for _ in child.parameters()):
            yield prefix + name


def _size(parameter: torch.nn.Parameter) -> int:
    state = getattr(parameter, 'quant_state', None)  # bitsandbytes packs two 4-bit values into a byte
    return parameter.numel() if state is None else state.shape.numel()


def _parameters(base: torch.nn.Module, name: str) -> Iterator[torch.nn.Parameter]:
    return (p for key, p in base.named_parameters() if key == name or key.startswith(f'{name}.'))


def _has_target(model: torch.nn.Module, pattern: str, targets: Iterable[str] | None) -> bool:
    """Return whether peft would adapt a module that matches `pattern`; without `targets`, any linear layer."""
    matches = [(name, module) for name, module in model.named_modules() if re.fullmatch(pattern, name)]
    if targets is None:
        return any(isinstance(module, torch.nn.Linear) for _, module in matches)
    return any(name == target or name.endswith(f'.{target}') for name, _ in matches for target in targets)


def combined_exclusions(exclude_modules: str | Iterable[str] | None, pattern: str) -> str:
    """Return one regular expression that matches what a user's `exclude_modules` or `pattern` matches."""
    if not exclude_modules:
        return pattern
    if not isinstance(exclude_modules, str):
        exclude_modules = rf'(.*\.)?({"|".join(map(re.escape, sorted(exclude_modules)))})'
    return f'{exclude_modules}|{pattern}'


def _join(modules: list[tuple[str, list]]) -> str:
    names = [name for name, _ in modules]
    return ', '.join(names[:4]) + (f' and {len(names) - 4} more' if len(names) > 4 else '')
