"""Differences between the settings of two runs with which the same trained weights have other outputs."""

import inspect
import json
from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any

from peft import PEFT_TYPE_TO_CONFIG_MAPPING

from ..config.lazy import named
from ..errors import ConfigError
from .ignored_settings import BASE_CHANGING_INITS, INIT_KEYS, MODULE_KEYS, PLAIN_INITS, is_ignored
from .model_settings import SECTIONS, ModelSettings

# Keys of the section `llm` whose effect is not recorded in config.json.
_LOADING_KEYS = ('type', 'revision', 'variant')


def differences(saved: ModelSettings, current: ModelSettings, compare_modules: bool) -> Iterator[str]:
    """Yield each setting that changes the outputs of the model, with both values.

    Args:
        saved: Settings of the checkpoint.
        current: Settings of the run.
        compare_modules: Whether to compare the keys that select the adapted modules, too.
    """
    yield from adapter_differences(saved.adapter, current.adapter, compare_modules)
    yield from model_differences(saved, current)


def adapter_differences(saved: dict | None, current: dict | None, compare_modules: bool) -> Iterator[str]:
    """Yield the differences between two adapter configs, as options of the section `lora`."""
    if saved is None or current is None:
        return
    if saved.get('peft_type') != current.get('peft_type'):
        yield _line('lora.type', saved.get('peft_type'), current.get('peft_type'))
        return
    defaults = _peft_defaults(current.get('peft_type'))
    saved, current = defaults | saved, defaults | current
    for key in sorted(saved.keys() | current.keys()):
        if (compare_modules or key not in MODULE_KEYS) and key not in INIT_KEYS and not is_ignored('adapter', key):
            yield from _compare(f'lora.{key}', saved.get(key), current.get(key))
    if any(config.get('init_lora_weights', True) not in PLAIN_INITS for config in (saved, current)):
        for key in INIT_KEYS:
            yield from _compare(f'lora.{key}', saved.get(key), current.get(key))


def changes_base(adapter: dict) -> bool:
    """Return whether the initialization in an adapter config changes the weights of the base."""
    return str(adapter.get('init_lora_weights', True)).startswith(BASE_CHANGING_INITS)


def model_differences(saved: ModelSettings, current: ModelSettings) -> Iterator[str]:
    """Yield the differences between two base models: architecture, loading and quantization."""
    yield from _architecture_differences(saved, current)
    if saved.sections and current.sections:
        for name in SECTIONS:
            yield from _section_differences(name, saved.sections.get(name), current.sections.get(name))


def _architecture_differences(saved: ModelSettings, current: ModelSettings) -> Iterator[str]:
    options = current.sections.get('llm') or {}
    # A key that only one of them has comes from another version of transformers.
    for key in sorted(saved.model.keys() & current.model.keys()):
        if not is_ignored('model', key):
            label = f'llm.{key}' if key in options else f'{key} in config.json of base_model'
            yield from _compare(label, saved.model[key], current.model[key])
    if not current.model:
        for key in sorted((options.keys() & saved.model.keys()) - {'dtype'}):
            if not is_ignored('model', key):
                yield from _compare_option(f'llm.{key}', saved.model[key], options[key])


def _section_differences(name: str, saved: Any, current: Any) -> Iterator[str]:
    if not isinstance(saved, dict) or not isinstance(current, dict):
        yield from _compare(name, saved, current)
        return
    defaults = _argument_defaults(saved.get('type')) if saved.get('type') == current.get('type') else {}
    saved, current = defaults | saved, defaults | current
    for key in sorted(saved.keys() | current.keys()):
        if (name != 'llm' or key in _LOADING_KEYS) and not is_ignored(name, key):
            yield from _compare(f'{name}.{key}', saved.get(key), current.get(key))


def _compare(label: str, saved: Any, current: Any) -> Iterator[str]:
    if isinstance(saved, dict) and isinstance(current, dict):
        for key in sorted(saved.keys() | current.keys(), key=str):
            yield from _compare(f'{label}.{key}', saved.get(key), current.get(key))
    elif saved != current and not (_is_empty(saved) and _is_empty(current)):
        yield _line(label, saved, current)


def _is_empty(value: Any) -> bool:
    return not value and type(value) in (dict, list, type(None))


def _compare_option(label: str, saved: Any, option: Any) -> Iterator[str]:
    """Yield the changes by an option; keys missing in a dict are taken from the base, and compared after loading it."""
    if isinstance(saved, dict) and isinstance(option, dict):
        for key in sorted(option, key=str):
            yield from _compare_option(f'{label}.{key}', saved.get(key), option[key])
    else:
        yield from _compare(label, saved, option)


def _line(label: str, saved: Any, current: Any) -> str:
    return f'{label}: was {saved!r}, now {current!r}'


def _peft_defaults(peft_type: str | None) -> dict:
    """Return the defaults of an adapter type, for keys that older versions of peft do not write."""
    config_classes = {getattr(name, 'value', name): config for name, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    defaults = {}
    for option in fields(config_classes[peft_type]) if peft_type in config_classes else ():
        if option.default is not MISSING:
            defaults[option.name] = option.default
        elif option.default_factory is not MISSING:
            defaults[option.name] = option.default_factory()
    return json.loads(json.dumps(defaults, default=str))


def _argument_defaults(dotted: str | None) -> dict:
    """Return the default arguments of the callable with this dotted name; empty if it cannot be imported."""
    try:
        parameters = inspect.signature(named(dotted)).parameters.values() if dotted else ()
    except (ConfigError, TypeError, ValueError):
        return {}
    return {p.name: p.default for p in parameters if p.default is not p.empty}
