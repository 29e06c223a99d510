"""Refuse names in section `lora` that match nothing in the model.

peft ignores most of them, so the run would train other weights than those that the config names.
"""

import copy
import re
from collections.abc import Iterator
from typing import Any

import torch

from ..errors import did_you_mean
from .module_names import MAX_SHOWN, as_list, close_names, matches_suffix, raise_problems, unknown_name

_ALL_LINEAR = 'all-linear'


def check_names(config: Any, model: torch.nn.Module) -> None:
    """Refuse names of a peft config that match no module or parameter of `model`, which has no adapter yet.

    Raises:
        ModelError: A name matches nothing, or a number is no layer or token of the model. The message lists all errors.
    """
    raise_problems([*_name_problems(config, model), *_layer_problems(config, model), *_token_problems(config, model)])


def converted_targets(config: Any, model: torch.nn.Module) -> set[str]:
    """Return the targets that name experts' modules of transformers 4, which peft converts to expert tensors."""
    try:
        from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers as convert
    except ImportError:  # a peft version without the conversion
        return set()
    targets = getattr(config, 'target_modules', None)
    if isinstance(targets, str) or not targets:
        return set()
    converted = copy.deepcopy(config)
    convert(converted, model, None)
    return set(targets) - set(converted.target_modules or ())


def _name_problems(config: Any, model: torch.nn.Module) -> Iterator[str]:
    modules = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    parameters = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    converted = converted_targets(config, model)
    for field in ('target_modules', 'exclude_modules', 'feedforward_modules'):
        value = getattr(config, field, None)
        if isinstance(value, str):
            if value != _ALL_LINEAR:
                yield from _regex_problems(field, value, modules)
            continue
        for entry in as_list(value):
            if entry not in converted and not any(matches_suffix(name, str(entry)) for name in modules):
                yield unknown_name(f'lora.{field}', entry, modules)
    yield from _container_problems(config, model)
    for field in ('rank_pattern', 'alpha_pattern'):
        for key in getattr(config, field, None) or {}:
            try:
                re.compile(key)
            except re.error as error:
                yield f'lora.{field} contains {key!r}, which is not a regular expression: {error}'
    for entry in as_list(getattr(config, 'modules_to_save', None)):
        if not any(name.endswith(str(entry)) for name in modules):
            yield unknown_name('lora.modules_to_save', entry, modules)
    for entry in as_list(getattr(config, 'target_parameters', None)):
        if not any(matches_suffix(name, str(entry)) for name in parameters):
            yield unknown_name('lora.target_parameters', entry, parameters, 'parameter')


def _container_problems(config: Any, model: torch.nn.Module) -> Iterator[str]:
    """Yield targets that are containers without a weight of their own."""
    targets = getattr(config, 'target_modules', None)
    for entry in [] if isinstance(targets, str) else as_list(targets):
        targeted = [module for name, module in model.named_modules() if matches_suffix(name, str(entry))]
        children = targeted[0].named_modules() if targeted else ()
        inside = [name for name, child in children if name and _has_weight(child)]
        if inside and not any(map(_has_weight, targeted)):
            names = list(dict.fromkeys(name.rpartition('.')[2] for name in inside))[:MAX_SHOWN]
            yield (
                f'lora.target_modules names {entry!r}, which is a {type(targeted[0]).__name__} and has no weight of '
                f'its own: name the layers inside it, such as {", ".join(names)}'
            )


def _has_weight(module: torch.nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


def _regex_problems(field: str, value: str, modules: list[str]) -> Iterator[str]:
    """Yield an error if the regular expression `value` is invalid or matches no full module name."""
    try:
        regex = re.compile(value)
    except re.error as error:
        yield f'lora.{field}={value!r} is not a regular expression: {error}'
        return
    if any(regex.fullmatch(name) for name in modules):
        return
    deepest = max(modules, key=lambda name: name.count('.'))
    is_suffix = any(matches_suffix(name, value) for name in modules)
    hint = f': write [{value!r}]' if is_suffix else close_names(value, modules)
    yield (
        f'lora.{field}={value!r} matches no module of the model: a string is a regular expression for the full name, '
        f'such as {deepest!r}; a list contains suffixes of names{hint}'
    )


def _layer_problems(config: Any, model: torch.nn.Module) -> Iterator[str]:
    modules = [name for name, _ in model.named_modules()]
    patterns = as_list(getattr(config, 'layers_pattern', None))
    for pattern in patterns:
        if not any(re.match(rf'(?:^|.*?\.){pattern}\.\d+\.', name) for name in modules):
            lists = {name.rpartition('.')[0].rpartition('.')[2] for name in modules if re.search(r'\.\d+$', name)}
            hint = did_you_mean(pattern, lists) or f'; there is {", ".join(sorted(lists))}'
            yield f'lora.layers_pattern names {pattern!r}, but the model has no such list of layers{hint}'
    wanted = as_list(getattr(config, 'layers_to_transform', None))
    if not wanted or getattr(config, 'layer_replication', None):  # replicated layers have higher numbers
        return
    regexes = [rf'(?:^|.*?\.){pattern}\.(\d+)\.' for pattern in patterns] or [r'.*?\.[^.]*\.(\d+)\.']
    layers = {int(match[1]) for regex in regexes for name in modules if (match := re.match(regex, name))}
    missing = [layer for layer in wanted if layer not in layers]
    if missing and layers:
        yield (
            f'lora.layers_to_transform names {", ".join(map(repr, missing))}, but the model has the layers '
            f'{min(layers)} to {max(layers)}'
        )


def _token_problems(config: Any, model: torch.nn.Module) -> Iterator[str]:
    value = getattr(config, 'trainable_token_indices', None)
    if value is None:
        return
    embeddings = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Embedding)}
    by_module = value if isinstance(value, dict) else {'': value}
    for entry, indices in by_module.items():
        modules = [
            module for name, module in model.named_modules(remove_duplicate=False) if matches_suffix(name, entry)
        ]
        if not modules and entry:
            yield unknown_name('lora.trainable_token_indices', entry, embeddings)
            continue
        module = modules[0] if entry else model.get_input_embeddings()
        size = module.weight.shape[0] if getattr(module, 'weight', None) is not None else None
        invalid = [index for index in as_list(indices) if type(index) is not int or not 0 <= index < (size or 0)]
        if invalid and size is not None:
            yield f'lora.trainable_token_indices contains {invalid[0]!r}, but the model has the tokens 0 to {size - 1}'
