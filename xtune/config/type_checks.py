"""Check the sections that name a `type` against its signature: their keys and values."""

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
    """Return the errors in the keys and values of sections that name a `type`; imports those types."""
    errors = []
    for name in TYPED:
        section = values.get(name)
        if not isinstance(section, dict) or 'type' not in section:  # `problems` reports it
            continue
        try:
            target = named(resolve(section['type']))
        except ConfigError as error:
            errors.append(f'`{name}.type`: {error}{_full_name(name, section["type"])}')
            continue
        try:
            arguments = {k: resolve(v) for k, v in section.items() if k != 'type'}
        except ConfigError as error:
            errors.append(f'`{name}`: {error}')
            continue
        unknown = list(argument_problems(name, target, arguments))
        errors += unknown
        if callable(target):
            section = partial(target, **arguments)
            errors += _value_problems(name, section, bool(values.get('quantization')), build=not unknown)
    return errors


def _full_name(section: str, name: Any) -> str:
    """Return the full name of a class that is given without its module, as a hint; or an empty string."""
    for module in _MODULES.get(section, ()) if isinstance(name, str) and name.isidentifier() else ():
        try:
            named(f'{module}.{name}')
        except ConfigError:
            continue
        return f'; did you mean `{module}.{name}`?'
    return '; torch.optim.AdamW is always available' if section == 'optimizer' else ''


def _value_problems(name: str, section: partial, quantized: bool, build: bool) -> Iterator[str]:
    """Yield errors in the values of a section that names a `type`.

    Args:
        name: The section's name.
        section: The callable with its arguments.
        quantized: Whether the config quantizes the base.
        build: Whether to call it, if its values have no error.
    """
    from .annotations import type_errors
    from .lora_values import lora_problems
    from .method_values import optimizer_problems, quantization_problems

    if name == 'lora':
        return lora_problems(section, quantized, build)
    if name == 'optimizer':
        return optimizer_problems(section, build)
    if name == 'quantization':
        return quantization_problems(section, build)
    return type_errors(name, section.func, section.keywords)


def inherited_arguments(errors: list[str], options: dict) -> list[str]:
    """Return how to drop the arguments of another type that the config has and `options` do not name."""
    for section in TYPED:
        inherited = [text for text in errors if text.startswith(f'`{section}.') and 'is not an argument of' in text]
        inherited = [text for text in inherited if text.split('`')[1] not in options]
        if f'{section}.type' in options and inherited:
            whole = f"{section}={{'type': '{options[f'{section}.type']}', ...}}"
            return [f'the config sets it for another type; replace the section: --cfg-options "{whole}"']
    return []
