"""Differences between the settings of two runs that change the function of the same trained weights."""

import inspect
import json
from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any

from peft import PEFT_TYPE_TO_CONFIG_MAPPING

from ..config.lazy import named
from ..errors import ConfigError
from .model_settings import SECTIONS, ModelSettings

# Keys of an adapter's config that say where adapters are: the names of its tensors tell that exactly.
WHERE = (
    'target_modules',
    'exclude_modules',
    'target_parameters',
    'modules_to_save',
    'layers_to_transform',
    'layers_pattern',
    'ensure_weight_tying',
)
# Keys that say how training goes or begins, who made the adapter, or where its base lies.
_FREE = {
    'adapter': (
        'base_model_name_or_path',
        'revision',
        'inference_mode',
        'task_type',
        'auto_mapping',
        'peft_version',
        'megatron_config',
        'megatron_core',
        'runtime_config',
    ),
    'model': (
        'transformers_version',
        '_name_or_path',
        'architectures',
        'auto_map',
        'torch_dtype',
        'attn_implementation',
        'use_cache',
        'id2label',
        'label2id',
        'problem_type',
        'return_dict',
        'initializer_range',
        'bos_token_id',
        'eos_token_id',
        'pad_token_id',
        'quantization_config',
        'pretraining_tp',
    ),
    'llm': (),
    'quantization': ('bnb_4bit_compute_dtype', 'bnb_4bit_quant_storage', 'llm_int8_enable_fp32_cpu_offload'),
}
# Beginnings of keys and ends of keys that change training alone.
_STARTS, _ENDS = ('output_', 'init_'), ('dropout', '_pdrop', '_aux_loss_coef')
# Ways to begin an adapter that do not matter once it is trained, and those that take a part out of the base's weights.
_HARMLESS = (True, False, 'gaussian', 'orthogonal', 'eva')
_TAKING = ('pissa', 'olora', 'corda', 'loftq', 'lora_ga')
_BEGINNING = ('init_lora_weights', 'loftq_config', 'corda_config', 'eva_config', 'lora_ga_config')
# Of the section `llm`, config.json does not tell what these choose.
_CHOOSING = ('type', 'revision', 'variant')


def differences(then: ModelSettings, now: ModelSettings, where: bool) -> Iterator[str]:
    """Yield each setting that makes the function of `now` another one, with both values.

    Args:
        then: Of the checkpoint.
        now: Of the run.
        where: Whether to compare on which modules the adapters are, too.
    """
    yield from adapter_differences(then.adapter, now.adapter, where)
    yield from model_differences(then, now)


def adapter_differences(then: dict | None, now: dict | None, where: bool) -> Iterator[str]:
    """Yield what differs between the configs of two adapters, as options of the section `lora`."""
    if then is None or now is None:
        return
    if then.get('peft_type') != now.get('peft_type'):
        yield _line('lora.type', then.get('peft_type'), now.get('peft_type'))
        return
    defaults = _defaults(now.get('peft_type'))
    then, now = defaults | then, defaults | now
    for key in sorted(then.keys() | now.keys()):
        if (where or key not in WHERE) and key not in _BEGINNING and not _is_free('adapter', key):
            yield from _compared(f'lora.{key}', then.get(key), now.get(key))
    if any(values.get('init_lora_weights', True) not in _HARMLESS for values in (then, now)):
        for key in _BEGINNING:
            yield from _compared(f'lora.{key}', then.get(key), now.get(key))


def changes_base(adapter: dict) -> bool:
    """Tell whether an adapter of that config begins by taking a part out of the base's weights."""
    return str(adapter.get('init_lora_weights', True)).startswith(_TAKING)


def model_differences(then: ModelSettings, now: ModelSettings) -> Iterator[str]:
    """Yield what differs between the base models of two runs, and how they are loaded and quantized."""
    given = now.sections.get('llm') or {}
    # A key that one of them lacks is of another version of transformers.
    for key in sorted(then.model.keys() & now.model.keys()):
        if not _is_free('model', key):
            label = f'llm.{key}' if key in given else f'{key} in config.json of base_model'
            yield from _compared(label, then.model[key], now.model[key])
    if not now.model:
        for key in sorted((given.keys() & then.model.keys()) - {'dtype'}):
            if not _is_free('model', key):
                yield from _given(f'llm.{key}', then.model[key], given[key])
    if not then.sections or not now.sections:
        return
    for name in SECTIONS:
        before, after = then.sections.get(name), now.sections.get(name)
        if not isinstance(before, dict) or not isinstance(after, dict):
            yield from _compared(name, before, after)
            continue
        defaults = _signature(before.get('type')) if before.get('type') == after.get('type') else {}
        before, after = defaults | before, defaults | after
        for key in sorted(before.keys() | after.keys()):
            if (name != 'llm' or key in _CHOOSING) and not _is_free(name, key):
                yield from _compared(f'{name}.{key}', before.get(key), after.get(key))


def _compared(label: str, then: Any, now: Any) -> Iterator[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted(then.keys() | now.keys(), key=str):
            yield from _compared(f'{label}.{key}', then.get(key), now.get(key))
    elif then != now and not (not then and not now and {type(then), type(now)} <= {dict, list, type(None)}):
        yield _line(label, then, now)


def _given(label: str, then: Any, given: Any) -> Iterator[str]:
    """Yield what an option changes; keys of a dict that it leaves out are taken from the base, and known later."""
    if isinstance(then, dict) and isinstance(given, dict):
        for key in sorted(given, key=str):
            yield from _given(f'{label}.{key}', then.get(key), given[key])
    else:
        yield from _compared(label, then, given)


def _line(label: str, then: Any, now: Any) -> str:
    return f'{label}: {then!r} then, {now!r} now'


def _is_free(kind: str, key: str) -> bool:
    return key in _FREE[kind] or key.startswith(_STARTS) or key.endswith(_ENDS)


def _defaults(peft_type: str | None) -> dict:
    """Return the defaults of a kind of adapter, for keys that older versions of peft do not write."""
    kinds = {getattr(kind, 'value', kind): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    found = {}
    for one in fields(kinds[peft_type]) if peft_type in kinds else ():
        if one.default is not MISSING:
            found[one.name] = one.default
        elif one.default_factory is not MISSING:
            found[one.name] = one.default_factory()
    return json.loads(json.dumps(found, default=str))


def _signature(dotted: str | None) -> dict:
    """Return the defaults of the arguments of a callable that the present config names, too."""
    try:
        parameters = inspect.signature(named(dotted)).parameters.values() if dotted else ()
    except (ConfigError, TypeError, ValueError):
        return {}
    return {p.name: p.default for p in parameters if p.default is not p.empty}
