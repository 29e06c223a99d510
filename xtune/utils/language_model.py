"""The language model inside a model that also takes images or sound, and the parts beside it.

Training is on text, which never reaches a vision tower. So the other parts stay as they are: full fine-tuning freezes
them, and adapters are put on the language model, unless `lora.target_modules` names another part.
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
    """Return the module that holds the decoder layers for text: all of `llm`, unless it takes more than text."""
    base = base_of(llm)
    config = getattr(base, 'config', None)
    if not hasattr(config, 'get_text_config') or config.get_text_config() is config:
        return base
    return base.get_decoder()


def other_parts(llm: torch.nn.Module) -> list[str]:
    """Return the names of the modules and weights of the base of `llm` that text does not reach; empty: there are none.

    Cross-attention layers are among them: without an image, their model skips them.
    """
    base, text = base_of(llm), language_model(llm)
    if text is base:
        return []
    used = {id(module) for module in text.modules()}
    used |= {id(base.get_input_embeddings()), id(base.get_output_embeddings())}
    found = list(_outside(base, used))
    crossing = getattr(base.config.get_text_config(), 'cross_attention_layers', None) or ()
    (prefix,) = (name for name, module in base.named_modules() if module is text)
    return found + [f'{prefix}.layers.{number}' for number in crossing]


def freeze_other_parts(llm: torch.nn.Module) -> None:
    """Train no weight that text does not reach: without a gradient, an optimizer might still decay it."""
    base = base_of(llm)
    for name in other_parts(llm):
        for parameter in _parameters(base, name):
            parameter.requires_grad_(False)


def spare_other_parts(model: torch.nn.Module, config: Any) -> None:
    """Let a peft config leave out the parts of `model` beside its language model.

    A regular expression as `target_modules` stays as it is. A part stays a target if a name in the list of
    `target_modules` has the part's own name in it, as `visual.merger.mlp.0` does.
    """
    targets = getattr(config, 'target_modules', None)
    if targets is None or (isinstance(targets, str) and targets != 'all-linear'):
        return
    everything = targets == 'all-linear'
    words = set() if everything else {word for target in targets for word in target.split('.')}
    spared = [name for name in other_parts(model) if name.rpartition('.')[2] not in words]
    pattern = '|'.join(rf'{re.escape(name)}(\..*)?' for name in spared)
    if not spared or not _has_target(model, pattern, None if everything else targets):
        return  # peft refuses a pattern that excludes nothing
    config.exclude_modules = joined_exclusions(config.exclude_modules, pattern)


def describe_other_parts(llm: torch.nn.Module) -> str | None:
    """Return a line about the parts of `llm` that stay as they are; None: text reaches all of it."""
    base = base_of(llm)
    frozen, trained = [], []
    for name in other_parts(llm):
        parameters = list(_parameters(base, name))
        (trained if any(p.requires_grad for p in parameters) else frozen).append((name, parameters))
    if not frozen and not trained:
        return None
    count = sum(_size(p) for _, parameters in frozen for p in parameters) / 1e6
    stay = f'{_listed(frozen)} ({count:,.2f} M parameters) stay as in the base' if frozen else ''
    more = f'adapters on {_listed(trained)} get no gradient from text' if trained else ''
    return f'training is on text only: {"; ".join(filter(None, (stay, more)))}'


def refuse_unreached(llm: torch.nn.Module) -> None:
    """Refuse an adapter none of which text reaches.

    Raises:
        ModelError: `llm` has such a one.
    """
    base, parts = base_of(llm), other_parts(llm)
    trained = [name for name, p in base.named_parameters() if p.requires_grad]
    if parts and trained and all(name.startswith(tuple(f'{part}.' for part in parts)) for name in trained):
        raise ModelError(
            f'lora.target_modules names only modules of {_listed([(part, []) for part in parts])}, which text does not '
            "reach, so nothing would be trained: name modules of the language model, or 'all-linear'"
        )


def _outside(module: torch.nn.Module, used: set[int], prefix: str = '') -> Iterator[str]:
    """Yield the topmost names below `module` that hold none of the modules `used`."""
    for name, _ in module.named_parameters(recurse=False):
        yield prefix + name
    for name, child in module.named_children():
        if id(child) in used:
            continue
        if any(id(inner) in used for inner in child.modules()):
            yield from _outside(child, used, f'{prefix}{name}.')
        elif any(True for _ in child.parameters()):
            yield prefix + name


def _size(parameter: torch.nn.Parameter) -> int:
    state = getattr(parameter, 'quant_state', None)  # of bitsandbytes, which packs two numbers in a byte
    return parameter.numel() if state is None else state.shape.numel()


def _parameters(base: torch.nn.Module, name: str) -> Iterator[torch.nn.Parameter]:
    return (p for key, p in base.named_parameters() if key == name or key.startswith(f'{name}.'))


def _has_target(model: torch.nn.Module, pattern: str, targets: Iterable[str] | None) -> bool:
    """Tell whether peft would put an adapter on a module that `pattern` names; None as targets: on linear layers."""
    inside = [(name, module) for name, module in model.named_modules() if re.fullmatch(pattern, name)]
    if targets is None:
        return any(isinstance(module, torch.nn.Linear) for _, module in inside)
    return any(name == target or name.endswith(f'.{target}') for name, _ in inside for target in targets)


def joined_exclusions(given: str | Iterable[str] | None, pattern: str) -> str:
    """Return one regular expression for what a user's `exclude_modules` names, and for `pattern`."""
    if not given:
        return pattern
    if not isinstance(given, str):
        given = rf'(.*\.)?({"|".join(map(re.escape, sorted(given)))})'
    return f'{given}|{pattern}'


def _listed(parts: list[tuple[str, list]]) -> str:
    names = [name for name, _ in parts]
    return ', '.join(names[:4]) + (f' and {len(names) - 4} more' if len(names) > 4 else '')
