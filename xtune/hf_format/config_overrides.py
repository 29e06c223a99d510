"""Settings of the model that a run changed, such as RoPE scaling: they belong to the adapter, and travel with it.

An adapter folder holds no config.json, so whoever loads it takes that of the base. Where the trained model has other
values, they are written to xtune_model_config.json beside the adapter; `xtune chat` and `xtune convert merge` apply
them. A merged model and a fully tuned one have them in their config.json.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig

from ..config.wire import Job
from ..errors import ModelError
from ..models.legacy.hub import legacy_folder
from ..models.legacy.recognise import read_json

FILE = 'xtune_model_config.json'

# Keys that change nothing that the model computes after training. All others count, known or not.
NEUTRAL = frozenset(
    (
        *('use_cache', 'return_dict', 'dtype', 'torch_dtype', 'quantization_config', 'pretraining_tp', 'use_mambapy'),
        *('architectures', 'auto_map', 'transformers_version', 'name_or_path', '_name_or_path', 'use_mamba_kernels'),
        *('attn_implementation', '_attn_implementation', '_attn_implementation_autoset', 'experts_implementation'),
        *('pad_token_id', 'bos_token_id', 'eos_token_id'),  # generation_config.json has those that count
        *('id2label', 'label2id', 'num_labels', 'problem_type', 'chunk_size_feed_forward', 'gradient_checkpointing'),
        *('initializer_range', 'router_aux_loss_coef', 'router_z_loss_coef', 'aux_loss_alpha', 'router_jitter_noise'),
    )
)
NEUTRAL_STARTS = ('output_',)
NEUTRAL_ENDS = ('dropout', 'pdrop', 'layerdrop', 'dropout_prob', 'dropout_rate')


def changed_config(llm: torch.nn.Module, job: Job) -> dict[str, Any]:
    """Return what the config of `llm` has otherwise than that of its base: {} if nothing that it computes differs.

    Those of a nested config, such as text_config, are nested here too.
    """
    trained, stored = _plain(llm.config), _plain(_stored_config(job))
    if trained.get('model_type') == stored.get('model_type'):
        return differences(trained, stored)
    for key, value in stored.items():  # a language model out of a larger one
        if key.endswith('_config') and isinstance(value, dict) and value.get('model_type') == trained['model_type']:
            inner = differences(trained, value)
            return {key: inner} if inner else {}
    return {}


def differences(trained: dict[str, Any], stored: dict[str, Any]) -> dict[str, Any]:
    """Return the values of `trained` that are otherwise in `stored`, without neutral keys."""
    found = {}
    for key, value in trained.items():
        before = stored.get(key)
        if key in NEUTRAL or key.startswith(NEUTRAL_STARTS) or key.endswith(NEUTRAL_ENDS):
            continue
        if key.endswith('_config') and isinstance(value, dict) and isinstance(before, dict):
            value, before = differences(value, before), {}
        if value != before:
            found[key] = value
    return found


def write_overrides(folder: Path, base_model: str, overrides: dict[str, Any]) -> None:
    """Write `overrides` into an adapter folder; nothing if there are none."""
    if overrides:
        content = json.dumps(dict(base_model=base_model, config_overrides=overrides), indent=2, ensure_ascii=False)
        (folder / FILE).write_text(content + '\n', encoding='utf-8')


def read_overrides(adapter: str | None) -> dict[str, Any]:
    """Return the settings that the adapter folder `adapter` was trained with beside those of its base.

    Raises:
        ModelError: The file is damaged.
    """
    path = Path(adapter).expanduser() / FILE if adapter else None
    if path is None or not path.is_file():
        return {}
    found = read_json(path).get('config_overrides')
    if not isinstance(found, dict):
        raise ModelError(f'{path}: `config_overrides` must be a JSON object, got {found!r}; copy the file again')
    return found


def with_overrides(config: PreTrainedConfig, overrides: dict[str, Any], model: str, adapter: str) -> PreTrainedConfig:
    """Return `config`, of the base `model`, with the settings of `adapter`, and say which ones changed.

    Raises:
        ModelError: The config has no place for one: the adapter was trained on another kind of model.
    """
    changed = differences(overrides, _plain(config))
    try:
        apply(config, overrides)
    except KeyError as error:
        raise ModelError(
            f'{adapter} was trained with {described(overrides)} ({FILE}), and {model} has no {error}: it is not the '
            'base that the adapter was trained on'
        ) from error
    if changed:
        print(f'note: {model} is loaded with {described(changed)}, as {adapter} was trained', file=sys.stderr)
    return config


def apply(config: PreTrainedConfig, overrides: dict[str, Any]) -> None:
    """Set `overrides` in `config`, nested ones in its nested configs.

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
    """Refuse a merge into a layout of 2023, whose config.json has other keys.

    Raises:
        ModelError: The adapter was trained with settings of its own.
    """
    found = read_overrides(adapter)
    if found:
        raise ModelError(
            f'{adapter} was trained with {described(found)}, which the layout of 2023 cannot hold; merge without '
            '--layout original'
        )


def note_overrides(overrides: dict[str, Any], base_model: str) -> None:
    """Print what a user of the adapter outside xtune must know, if there is something."""
    if not overrides:
        return
    print(
        f'note: the adapter belongs to {base_model} with {described(overrides)}. {FILE} in its folder tells xtune so; '
        'peft and vLLM do not read it: merge the adapter first (xtune convert merge), or load the base with these '
        'settings'
    )


def described(overrides: dict[str, Any]) -> str:
    """Return 'key = value' of each setting."""
    return ', '.join(f'{key} = {json.dumps(value, ensure_ascii=False)}' for key, value in overrides.items())


def _stored_config(job: Job) -> PreTrainedConfig:
    name, given = job.values.base_model, job.load_llm.keywords
    folder = legacy_folder(name, revision=given.get('revision'))
    if folder is not None:
        from ..models.legacy.families import open_legacy

        return open_legacy(folder, given.get('variant')).config
    wanted = {key: value for key, value in given.items() if key in ('trust_remote_code', 'revision')}
    return AutoConfig.from_pretrained(name, **{'trust_remote_code': False, **wanted})


def _plain(config: PreTrainedConfig) -> dict[str, Any]:
    return json.loads(json.dumps(config.to_dict(), default=str))
