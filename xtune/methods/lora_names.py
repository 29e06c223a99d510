"""Names in section `lora` that match nothing in the model. peft ignores most of them, so the run would train other
weights than the config says.
"""

import copy
import re
from collections.abc import Iterator
from typing import Any

import torch

from ..errors import did_you_mean
from .module_names import SHOWN, closest, ends_with, listed, refuse, unknown

# Whose value is 'all-linear' instead of names.
_EVERY_LINEAR = 'all-linear'


def check_names(config: Any, model: torch.nn.Module) -> None:
    """Refuse names of a peft config that no module or parameter of `model` has; `model` has no adapter yet.

    Raises:
        ModelError: A name matches nothing, or a number is no layer or token of the model. The message lists them all.
    """
    refuse([*_name_problems(config, model), *_layer_problems(config, model), *_token_problems(config, model)])


def moved_targets(config: Any, model: torch.nn.Module) -> set[str]:
    """Return the targets that are no modules in transformers 5, and that peft turns into tensors of all experts."""
    try:
        from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers as convert
    except ImportError:  # a peft that does not
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
    moved = moved_targets(config, model)
    for field in ('target_modules', 'exclude_modules', 'feedforward_modules'):
        value = getattr(config, field, None)
        if isinstance(value, str):
            if value != _EVERY_LINEAR:
                yield from _expression_problems(field, value, modules)
            continue
        for entry in listed(value):
            if entry not in moved and not any(ends_with(name, str(entry)) for name in modules):
                yield unknown(f'lora.{field}', entry, modules)
    yield from _container_problems(config, model)
    for field in ('rank_pattern', 'alpha_pattern'):
        for key in getattr(config, field, None) or {}:
            try:
                re.compile(key)
            except re.error as error:
                yield f'lora.{field} holds {key!r}, which is no regular expression: {error}'
    for entry in listed(getattr(config, 'modules_to_save', None)):
        if not any(name.endswith(str(entry)) for name in modules):
            yield unknown('lora.modules_to_save', entry, modules)
    for entry in listed(getattr(config, 'target_parameters', None)):
        if not any(ends_with(name, str(entry)) for name in parameters):
            yield unknown('lora.target_parameters', entry, parameters, 'parameter')


def _container_problems(config: Any, model: torch.nn.Module) -> Iterator[str]:
    """Yield targets that have no weight of their own, only modules that have: peft adapts those."""
    targets = getattr(config, 'target_modules', None)
    for entry in [] if isinstance(targets, str) else listed(targets):
        found = [module for name, module in model.named_modules() if ends_with(name, str(entry))]
        inside = [name for name, child in found[0].named_modules() if name and _has_weight(child)] if found else []
        if inside and not any(map(_has_weight, found)):
            names = list(dict.fromkeys(name.rpartition('.')[2] for name in inside))[:SHOWN]
            yield (
                f'lora.target_modules names {entry!r}, which is a {type(found[0]).__name__} and has no weight of its '
                f'own: name the layers inside it, such as {", ".join(names)}'
            )


def _has_weight(module: torch.nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


def _expression_problems(field: str, value: str, modules: list[str]) -> Iterator[str]:
    """Yield what is wrong with a regular expression, which must match a whole name."""
    try:
        expression = re.compile(value)
    except re.error as error:
        yield f'lora.{field}={value!r} is no regular expression: {error}'
        return
    if any(expression.fullmatch(name) for name in modules):
        return
    longest = max(modules, key=lambda name: name.count('.'))
    hint = f': write [{value!r}]' if any(ends_with(name, value) for name in modules) else closest(value, modules)
    yield (
        f'lora.{field}={value!r} matches no module of the model: a text is a regular expression for the whole name, '
        f'such as {longest!r}; a list holds ends of names{hint}'
    )


def _layer_problems(config: Any, model: torch.nn.Module) -> Iterator[str]:
    modules = [name for name, _ in model.named_modules()]
    patterns = listed(getattr(config, 'layers_pattern', None))
    for pattern in patterns:
        if not any(re.match(rf'(?:^|.*?\.){pattern}\.\d+\.', name) for name in modules):
            lists = {name.rpartition('.')[0].rpartition('.')[2] for name in modules if re.search(r'\.\d+$', name)}
            hint = did_you_mean(pattern, lists) or f'; there is {", ".join(sorted(lists))}'
            yield f'lora.layers_pattern names {pattern!r}, and no list of layers of the model is called so{hint}'
    wanted = listed(getattr(config, 'layers_to_transform', None))
    if not wanted or getattr(config, 'layer_replication', None):  # copies have numbers beyond those of the model
        return
    forms = [rf'(?:^|.*?\.){pattern}\.(\d+)\.' for pattern in patterns] or [r'.*?\.[^.]*\.(\d+)\.']
    numbers = {int(found[1]) for form in forms for name in modules if (found := re.match(form, name))}
    wrong = [number for number in wanted if number not in numbers]
    if wrong and numbers:
        yield (
            f'lora.layers_to_transform names {", ".join(map(repr, wrong))}, and the model has the layers '
            f'{min(numbers)} to {max(numbers)}'
        )


def _token_problems(config: Any, model: torch.nn.Module) -> Iterator[str]:
    given = getattr(config, 'trainable_token_indices', None)
    if given is None:
        return
    embeddings = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Embedding)}
    named = given if isinstance(given, dict) else {'': given}
    for entry, indices in named.items():
        found = [module for name, module in model.named_modules(remove_duplicate=False) if ends_with(name, entry)]
        if not found and entry:
            yield unknown('lora.trainable_token_indices', entry, embeddings)
            continue
        module = found[0] if entry else model.get_input_embeddings()
        size = module.weight.shape[0] if getattr(module, 'weight', None) is not None else None
        wrong = [index for index in listed(indices) if type(index) is not int or not 0 <= index < (size or 0)]
        if wrong and size is not None:
            yield f'lora.trainable_token_indices holds {wrong[0]!r}, and the model has the tokens 0 to {size - 1}'
