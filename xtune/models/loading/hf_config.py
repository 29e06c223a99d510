"""The config of the base model of a run: its config.json with the changes of the section `llm`."""

import copy
from functools import partial
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from ...config.loader_keys import check_llm_keys, check_reserved_keys
from ...errors import ModelError
from ...utils.quiet import quiet
from ..legacy.hub import legacy_folder
from .config_json import reason
from .folder_checks import check_model_folder
from .model_class import LOCATION_ARGUMENTS, refuse_text_settings


def load_hf_config(base_model: str, load_llm: partial) -> PreTrainedConfig:
    """Return the config of `base_model`, a folder or a name on the hub, with the changes of the section `llm`.

    Args:
        base_model: The model's folder or its name on the hub.
        load_llm: The loader of the section `llm`, with the values of that section as keyword arguments.

    Raises:
        ConfigError: A key of the section `llm` has no effect.
        ModelError: The config cannot be found or read, or the section `llm` names a custom loader.
    """
    llm_values = load_llm.keywords
    check_reserved_keys(load_llm.func, llm_values)
    if getattr(load_llm.func, '__name__', '') != 'from_pretrained':
        raise ModelError(f'llm.type={load_llm.func} is a custom loader, so config.json does not describe its model')
    check_model_folder(base_model, weights=False)
    folder = legacy_folder(base_model, revision=llm_values.get('revision'))
    try:
        with quiet():
            if folder is not None:
                from ..legacy.families import open_legacy

                config = open_legacy(folder, llm_values.get('variant')).config
            else:
                source = {key: value for key, value in llm_values.items() if key in LOCATION_ARGUMENTS}
                trusted = bool(llm_values.get('trust_remote_code'))
                config = AutoConfig.from_pretrained(base_model, trust_remote_code=trusted, **source)
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise ModelError(f'config.json of the model `{base_model}` cannot be read: {reason(error)}') from error
    return with_llm_values(config, llm_values)


def with_llm_values(config: PreTrainedConfig, llm_values: dict[str, Any]) -> PreTrainedConfig:
    """Return a copy of `config` with the changes of the section `llm`.

    Raises:
        ConfigError: A key of that section has no effect.
    """
    config = copy.deepcopy(config)
    refuse_text_settings(config, llm_values)
    check_llm_keys(llm_values, config)
    for key, value in llm_values.items():
        if hasattr(config, key) and not callable(getattr(config, key)) and key not in ('dtype', 'attn_implementation'):
            setattr(config, key, value)
    return config
