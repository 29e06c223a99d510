"""What decides the function that a model computes, besides the weights that are trained: settings of the adapter, of
the architecture, of the quantisation, and which base it is. A checkpoint and a run are compared by it.
"""

import inspect
import json
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from peft import PEFT_TYPE_TO_CONFIG_MAPPING

from ..config.lazy import named
from ..config.stored import stored_sections
from ..errors import ConfigError

SECTIONS = ('llm', 'quantization')
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
# Ways to begin an adapter that leave the base as it is. Others take something out of its weights, as these say.
_HARMLESS = (True, False, 'gaussian', 'orthogonal', 'eva')
_BEGINNING = ('init_lora_weights', 'loftq_config', 'corda_config', 'eva_config', 'lora_ga_config')
# Of the section `llm`, config.json does not tell what these choose.
_CHOOSING = ('type', 'revision', 'variant')


@dataclass(frozen=True)
class Function:
    """What a checkpoint or a run computes with.

    Args:
        base: Folder or hub name of the base model.
        adapter: peft's config as JSON has it; None: all weights are trained.
        model: The base's config.json; empty: not known.
        sections: The sections `llm` and `quantization` of the config.
        mark: See `base_mark`; empty: not known.
    """

    base: str
    adapter: dict | None
    model: dict = field(default_factory=dict)
    sections: dict[str, Any] = field(default_factory=dict)
    mark: str = ''

    @classmethod
    def of_meta(cls, meta: dict) -> 'Function':
        """Return that of a checkpoint's `meta`."""
        export = meta['export']
        adapter = export['adapter_config']
        return cls(
            export['base_model'],
            None if adapter is None else json.loads(adapter),
            json.loads(export['model_config']),
            stored_sections(meta.get('config', ''), SECTIONS),
            meta.get('base_mark', ''),
        )


def plain(config: Any) -> dict:
    """Return a peft or transformers config as its JSON has it."""
    values = {key: sorted(v) if isinstance(v, set) else v for key, v in config.to_dict().items()}
    return json.loads(json.dumps(values, default=str))


def differences(then: Function, now: Function, where: bool) -> Iterator[str]:
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
    if changes_base(then) or changes_base(now):
        for key in _BEGINNING:
            yield from _compared(f'lora.{key}', then.get(key), now.get(key))


def changes_base(adapter: dict) -> bool:
    """Tell whether an adapter of that config begins by taking something out of the base's weights."""
    return adapter.get('init_lora_weights', True) not in _HARMLESS


def model_differences(then: Function, now: Function) -> Iterator[str]:
    """Yield what differs between the base models of two runs, and how they are loaded and quantised."""
    given = now.sections.get('llm') or {}
    # A key that one of them lacks is of another version of transformers.
    for key in sorted(then.model.keys() & now.model.keys()):
        if not _is_free('model', key):
            label = f'llm.{key}' if key in given else f'{key} in config.json of base_model'
            yield from _compared(label, then.model[key], now.model[key])
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
