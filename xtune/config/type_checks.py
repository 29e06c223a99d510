"""Check the sections that name a `type` against it: its arguments, and their values."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from ..errors import ConfigError
from .lazy import named, resolve
from .sections import TYPED
from .validate import argument_problems

# Where the classes of a section are.
_MODULES = {'optimizer': ('torch.optim', 'bitsandbytes.optim'), 'lora': ('peft',), 'quantization': ('transformers',)}


def type_problems(values: dict) -> list[str]:
    """Return what is wrong with the keys and values of sections that name a `type`; imports those types."""
    found = []
    for name in TYPED:
        section = values.get(name)
        if not isinstance(section, dict) or 'type' not in section:  # `problems` tells of it
            continue
        try:
            target = named(resolve(section['type']))
        except ConfigError as error:
            found.append(f'`{name}.type`: {error}{_full_name(name, section["type"])}')
            continue
        try:
            arguments = {k: resolve(v) for k, v in section.items() if k != 'type'}
        except ConfigError as error:
            found.append(f'`{name}`: {error}')
            continue
        unknown = list(argument_problems(name, target, arguments))
        found += unknown
        if callable(target):
            section = partial(target, **arguments)
            found += _value_problems(name, section, bool(values.get('quantization')), build=not unknown)
    return found


def _full_name(section: str, kind: Any) -> str:
    """Return the advice to take the class of this name, if a library has one that is written without its module."""
    for module in _MODULES.get(section, ()) if isinstance(kind, str) and kind.isidentifier() else ():
        try:
            named(f'{module}.{kind}')
        except ConfigError:
            continue
        return f'; did you mean `{module}.{kind}`?'
    return '; torch.optim.AdamW is always there' if section == 'optimizer' else ''


def _value_problems(name: str, section: partial, quantised: bool, build: bool) -> Iterator[str]:
    """Yield which values of a section that names a `type` its callable cannot take.

    Args:
        name: The section's name.
        section: The callable with its arguments.
        quantised: Whether the config quantises the base.
        build: Whether to call it, if its values look right.
    """
    from .annotations import unfit
    from .lora_values import lora_problems
    from .method_values import optimizer_problems, quantization_problems

    if name == 'lora':
        return lora_problems(section, quantised, build)
    if name == 'optimizer':
        return optimizer_problems(section, build)
    if name == 'quantization':
        return quantization_problems(section, build)
    return unfit(name, section.func, section.keywords)


def of_the_preset(found: list[str], options: dict) -> list[str]:
    """Return how to leave away arguments of another type, which the config has and `options` do not name."""
    for section in TYPED:
        inherited = [text for text in found if text.startswith(f'`{section}.') and 'is no argument of' in text]
        inherited = [text for text in inherited if text.split('`')[1] not in options]
        if f'{section}.type' in options and inherited:
            whole = f"{section}={{'type': '{options[f'{section}.type']}', ...}}"
            return [f'the config sets it for another type; replace the whole section: --cfg-options "{whole}"']
    return []
