"""Refuse what a run cannot do with a base whose checkpoint is already quantized."""

import copy
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.quantizers import AutoHfQuantizer

from ..config.adapter_start import changes_base, refused_on_quantized
from ..config.specs import ModelSpec
from ..errors import ConfigError, ModelError
from ..models.loading.config_checks import describe_stored_quantization, stored_quantization
from ..models.loading.config_json import reason
from .float8_checks import float8_config

# Methods that transformers cannot train with and therefore dequantizes while loading.
_DEQUANTIZED = ('mxfp4',)


def is_dequantized(settings: dict[str, Any]) -> bool:
    """Return whether weights with this quantization config are dequantized while loading."""
    return bool(settings.get('dequantize')) or settings.get('quant_method') in _DEQUANTIZED


def check_prequantized_base(spec: ModelSpec, config: PreTrainedConfig, device: torch.device) -> None:
    """Refuse a run that is incompatible with the stored quantization of its base.

    Raises:
        ConfigError: The run would train quantized weights, quantize them again, or initialize the adapter from them.
        ModelError: transformers cannot train adapters on them, or needs another package for it.
    """
    settings = stored_quantization(config)
    if settings is None:
        return
    dequantized, stored = is_dequantized(settings), describe_stored_quantization(config)
    problem = f'the weights of {spec.base_model} are {stored}'
    if spec.quantization is not None and not (dequantized and float8_config(spec.quantization) is not None):
        name = getattr(spec.quantization.func, '__name__', 'another quantization')
        raise ConfigError(
            f'{problem}, and the section `quantization` asks for {name}: set quantization=None to train on them as '
            'they are, or use the unquantized base'
        )
    if dequantized:
        return
    if spec.lora is None:
        raise ConfigError(
            f'{problem}, and quantized weights cannot be trained: use a lora preset, or the unquantized base'
        )
    init = spec.lora.keywords.get('init_lora_weights')
    if changes_base(init):
        raise refused_on_quantized(init, f'the base is {stored}, which')
    _check_trainable(settings, problem, device)


def refuse_more_bits(name: str, config: PreTrainedConfig, bits: int) -> None:
    """Refuse to quantize the model `name` while loading if it is pre-quantized.

    Raises:
        ModelError: It is.
    """
    if stored_quantization(config) is not None:
        raise ModelError(
            f'--bits {bits}, but the weights of {name} are {describe_stored_quantization(config)}: leave --bits out to '
            'use them as they are, or use the unquantized model'
        )


def refuse_merge(name: str, config: PreTrainedConfig) -> None:
    """Refuse to merge into the model `name` if its weights stay quantized after loading.

    Raises:
        ModelError: They do.
    """
    settings = stored_quantization(config)
    if settings is not None and not is_dequantized(settings):
        raise ModelError(
            f'the weights of {name} are {describe_stored_quantization(config)}, and an adapter cannot be merged into '
            'quantized weights: merge into the unquantized model, or use the adapter directly: xtune chat BASE '
            '--adapter ADAPTER'
        )


def method_of_stored(settings: dict[str, Any]) -> str:
    """Return the row of the compatibility table of methods and strategies for an adapter on a pre-quantized base.

    Sharding needs floating-point storage, which NF4 checkpoints may have but rarely do.
    """
    if settings.get('load_in_8bit'):
        return 'int8_lora'
    storage = str(settings.get('bnb_4bit_quant_storage', 'uint8')).removeprefix('torch.')
    return 'qlora' if settings.get('load_in_4bit') and 'float' in storage else 'other_quantized'


def _check_trainable(settings: dict[str, Any], problem: str, device: torch.device) -> None:
    try:
        quantizer = AutoHfQuantizer.from_config(copy.deepcopy(settings), pre_quantized=True)
        quantizer.validate_environment(device_map={'': str(device)}, weights_only=True)
        trainable = quantizer.is_trainable
    except ImportError as error:
        raise ModelError(f'{problem}, and a package for them is missing: {reason(error)}') from error
    except Exception:  # quantizers of many packages; loading the model reports the problem
        return
    if trainable is False and not getattr(quantizer.quantization_config, 'dequantize', False):
        raise ModelError(f'{problem}, on which transformers cannot train adapters: use the unquantized base')
