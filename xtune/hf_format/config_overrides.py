"""Model settings that a run changed, such as RoPE scaling; they are saved with the adapter.

An adapter folder has no config.json, so the base's is used. Values that differ in the trained model are written to
xtune_model_config.json in the adapter folder; `xtune chat` and `xtune convert merge` apply them. A merged or fully
fine-tuned model has them in its config.json.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig

from ..config.specs import ModelSpec
from ..errors import ModelError
from ..models.legacy.hub import legacy_folder
from ..models.loading.json_files import read_json

FILE = 'xtune_model_config.json'

# Keys that do not affect the model's outputs after training. All other keys are compared, including unknown ones.
NEUTRAL = frozenset(
    (
        *('use_cache', 'return_dict', 'dtype', 'torch_dtype', 'quantization_config', 'pretraining_tp', 'use_mambapy'),
        *('architectures', 'auto_map', 'transformers_version', 'name_or_path', '_name_or_path', 'use_mamba_kernels'),
        *('attn_implementation', '_attn_implementation', '_attn_implementation_autoset', 'experts_implementation'),
        *('pad_token_id', 'bos_token_id', 'eos_token_id'),  # generation uses those of generation_config.json
        *('id2label', 'label2id', 'num_labels', 'problem_type', 'chunk_size_feed_forward', 'gradient_checkpointing'),
        *('initializer_range', 'router_aux_loss_coef', 'router_z_loss_coef', 'aux_loss_alpha', 'router_jitter_noise'),
    )
)
NEUTRAL_STARTS = ('output_',)
NEUTRAL_ENDS = ('dropout', 'pdrop', 'layerdrop', 'dropout_prob', 'dropout_rate')


def changed_config(llm: torch.nn.Module, spec: ModelSpec) -> dict[str, Any]:
    """Return the values of `llm`'s config that differ from its base's config.json, without neutral keys.

    Values of a nested config, such as text_config, are nested in the result.
    """
    trained, stored = _plain(llm.config), _plain(_stored_config(spec))
    if trained.get('model_type') == stored.get('model_type'):
        return differences(trained, stored)
    for key, value in stored.items():  # the language model of a multimodal base
        if key.endswith('_config') and isinstance(value, dict) and value.get('model_type') == trained['model_type']:
            inner = differences(trained, value)
            return {key: inner} if inner else {}
    return {}


def differences(trained: dict[str, Any], stored: dict[str, Any]) -> dict[str, Any]:
    """Return the values of `trained` that differ in `stored`, without neutral keys."""
    changed = {}
    for key, value in trained.items():
        before = stored.get(key)
        if key in NEUTRAL or key.startswith(NEUTRAL_STARTS) or key.endswith(NEUTRAL_ENDS):
            continue
        if key.endswith('_config') and isinstance(value, dict) and isinstance(before, dict):
            value, before = differences(value, before), {}
        if value != before:
            changed[key] = value
    return changed


def write_overrides(folder: Path, base_model: str, overrides: dict[str, Any]) -> None:
    """Write `overrides` into an adapter folder, unless they are empty."""
    if overrides:
        content = json.dumps(dict(base_model=base_model, config_overrides=overrides), indent=2, ensure_ascii=False)
        (folder / FILE).write_text(content + '\n', encoding='utf-8')


def read_overrides(adapter: str | None) -> dict[str, Any]:
    """Return the model settings of the adapter folder `adapter` that differ from its base's config.json.

    Raises:
        ModelError: The file is damaged.
    """
    path = Path(adapter).expanduser() / FILE if adapter else None
    if path is None or not path.is_file():
        return {}
    overrides = read_json(path).get('config_overrides')
    if not isinstance(overrides, dict):
        raise ModelError(f'{path}: `config_overrides` must be a JSON object, got {overrides!r}; copy the file again')
    return overrides


def with_overrides(config: PreTrainedConfig, overrides: dict[str, Any], model: str, adapter: str) -> PreTrainedConfig:
    """Apply the `overrides` of `adapter` to `config`, that of the base `model`, and print which values changed.

    Raises:
        ModelError: The config lacks a nested config: the adapter was trained on another model.
    """
    changed = differences(overrides, _plain(config))
    try:
        apply(config, overrides)
    except KeyError as error:
        raise ModelError(
            f'{adapter} was trained with {describe(overrides)} ({FILE}), and {model} has no {error}: it is not the '
            'base that the adapter was trained on'
        ) from error
    if changed:
        print(f'note: {model} is loaded with {describe(changed)}, as {adapter} was trained', file=sys.stderr)
    return config


def apply(config: PreTrainedConfig, overrides: dict[str, Any]) -> None:
    """Set `overrides` in `config`; a dict is applied to the nested config of that name.

    Raises:
        KeyError: `config` lacks a nested config.
    """
    for key, value in overrides.items():
        inner = getattr(config, key, None)
        if isinstance(inner, PreTrainedConfig) and isinstance(value, dict):
            apply(inner, value)
        elif key.endswith('_config') and isinstance(value, dict) and inner is None:
            raise KeyError(key)
        else:
            setattr(config, key, value)


def refuse_overrides(adapter: str) -> None:
    """Refuse a merge into the layout of a 2023 remote-code checkpoint, whose config.json has other keys.

    Raises:
        ModelError: The adapter was trained with changed model settings.
    """
    overrides = read_overrides(adapter)
    if overrides:
        raise ModelError(
            f'{adapter} was trained with {describe(overrides)}, which the config.json of a 2023 remote-code checkpoint '
            'cannot express; merge without --layout original'
        )


def note_overrides(overrides: dict[str, Any], base_model: str) -> None:
    """Print how to use an adapter with `overrides` outside xtune; nothing without overrides."""
    if not overrides:
        return
    print(
        f'note: the adapter needs {base_model} with {describe(overrides)}. xtune reads this from {FILE} in the adapter '
        'folder; peft and vLLM do not: merge the adapter first (xtune convert merge), or load the base with these '
        'settings'
    )


def describe(overrides: dict[str, Any]) -> str:
    """Return 'key = value' of each setting."""
    return ', '.join(f'{key} = {json.dumps(value, ensure_ascii=False)}' for key, value in overrides.items())


def _stored_config(spec: ModelSpec) -> PreTrainedConfig:
    name, section = spec.base_model, spec.load_llm.keywords
    folder = legacy_folder(name, revision=section.get('revision'))
    if folder is not None:
        from ..models.legacy.families import open_legacy

        return open_legacy(folder, section.get('variant')).config
    arguments = {key: value for key, value in section.items() if key in ('trust_remote_code', 'revision')}
    return AutoConfig.from_pretrained(name, **{'trust_remote_code': False, **arguments})


def _plain(config: PreTrainedConfig) -> dict[str, Any]:
    return json.loads(json.dumps(config.to_dict(), default=str))
