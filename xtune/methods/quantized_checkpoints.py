"""A base whose files are quantised already, as its config.json says: what a run cannot do with it."""

import copy
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.quantizers import AutoHfQuantizer

from ..config.adapter_start import changes_base, refused_on_quantised
from ..config.wire import Job
from ..errors import ConfigError, ModelError
from ..models.loading.config_checks import stored_form, stored_settings
from ..models.loading.config_json import reason
from .float8_checks import float8_of

# Methods that transformers cannot train with and therefore unpacks while loading.
_UNPACKED = ('mxfp4',)


def is_unpacked(settings: dict[str, Any]) -> bool:
    """Tell whether the weights are ordinary ones once they are loaded, by the settings that they are stored with."""
    return bool(settings.get('dequantize')) or settings.get('quant_method') in _UNPACKED


def check_stored(job: Job, config: PreTrainedConfig, device: torch.device) -> None:
    """Refuse a run that its base does not go with, because of how the base is stored.

    Raises:
        ConfigError: Quantised weights are to be trained, quantised once more, or to be changed by the adapter's start.
        ModelError: transformers cannot train adapters on them, or needs a package for it.
    """
    settings = stored_settings(config)
    if settings is None:
        return
    unpacked, base = is_unpacked(settings), f'the weights of {job.values.base_model} are {stored_form(config)}'
    if job.quantization is not None and not (unpacked and float8_of(job) is not None):
        kind = getattr(job.quantization.func, '__name__', 'another quantisation')
        raise ConfigError(
            f'{base}, and the section `quantization` asks for {kind}: set quantization=None to train on them as they '
            'are, or take the base that they were made from'
        )
    if unpacked:
        return
    if job.lora is None:
        raise ConfigError(
            f'{base}, and quantised weights cannot be trained themselves: take a lora preset, or the base that they '
            'were made from'
        )
    start = job.lora.keywords.get('init_lora_weights')
    if changes_base(start):
        raise refused_on_quantised(start, f'the base is {stored_form(config)}, which')
    _check_trainable(settings, base, device)


def refuse_more_bits(name: str, config: PreTrainedConfig, bits: int) -> None:
    """Refuse to quantise the weights of the model `name` while loading if they are quantised already.

    Raises:
        ModelError: They are.
    """
    if stored_settings(config) is not None:
        raise ModelError(
            f'--bits {bits}, but the weights of {name} are {stored_form(config)}: leave --bits out to use them as they '
            'are, or take the model that they were made from'
        )


def refuse_merge(name: str, config: PreTrainedConfig) -> None:
    """Refuse to merge into the model `name` if its weights are quantised and stay so while loading.

    Raises:
        ModelError: They are.
    """
    settings = stored_settings(config)
    if settings is not None and not is_unpacked(settings):
        raise ModelError(
            f'the weights of {name} are {stored_form(config)}, and nothing can be added to what is rounded so: merge '
            'into the model that it was made from, or use the adapter as it is: xtune chat BASE --adapter ADAPTER'
        )


def row_of_stored(settings: dict[str, Any]) -> str:
    """Return the row of the table of methods and strategies for an adapter on stored weights.

    Slices have to be of floating-point numbers, which is how NF4 may be stored, but seldom is.
    """
    if settings.get('load_in_8bit'):
        return 'int8_lora'
    storage = str(settings.get('bnb_4bit_quant_storage', 'uint8')).removeprefix('torch.')
    return 'qlora' if settings.get('load_in_4bit') and 'float' in storage else 'other_quantised'


def _check_trainable(settings: dict[str, Any], base: str, device: torch.device) -> None:
    try:
        quantizer = AutoHfQuantizer.from_config(copy.deepcopy(settings), pre_quantized=True)
        quantizer.validate_environment(device_map={'': str(device)}, weights_only=True)
        trainable = quantizer.is_trainable
    except ImportError as error:
        raise ModelError(f'{base}, and a package for them is missing: {reason(error)}') from error
    except Exception:  # quantisers of many packages; what is wrong shows when the model is loaded
        return
    if trainable is False and not getattr(quantizer.quantization_config, 'dequantize', False):
        raise ModelError(f'{base}, on which transformers cannot train adapters: take the base that they were made from')
