"""The model of a run on the meta device: modules, names, shapes and dtypes from config.json, without weights."""

import copy

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.quantizers import AutoHfQuantizer

from ..config.specs import ModelSpec
from ..errors import ModelError
from ..models.loading.config_json import reason
from ..models.loading.meta_init import META
from ..models.loading.model_class import auto_class
from ..ops.float8_linear import to_float8_base
from ..utils.quiet import quiet
from .base_model import build_quantization_config
from .float8_checks import float8_config


def build_meta_model(
    spec: ModelSpec, config: PreTrainedConfig, dtype: torch.dtype, attention: str | None = None
) -> PreTrainedModel:
    """Return the base model of `spec` on the meta device, with quantized layers in place.

    Args:
        spec: The model of the run.
        config: The config of its base model.
        dtype: The compute type of the run.
        attention: The attention implementation; None: the one of the section `llm`, or else the model's default.

    Raises:
        ModelError: It cannot be built, or its stored or requested quantization is not supported here.
    """
    config, options = _unquantized(config), spec.load_llm.keywords
    attention = attention or options.get('attn_implementation')
    attention_options = {} if attention is None else {'attn_implementation': attention}
    trusted = bool(options.get('trust_remote_code'))
    weight_dtype = dtype if spec.lora is not None else torch.float32
    quantization, float8 = build_quantization_config(spec, dtype), float8_config(spec.quantization)
    try:
        with quiet(), META:
            model_class = auto_class(config, trusted)
            model = model_class.from_config(config, dtype=weight_dtype, trust_remote_code=trusted, **attention_options)
            if quantization is not None:
                _quantize(model, quantization)
            if float8 is not None:
                to_float8_base(model, float8)
    except ModelError:
        raise
    except (ValueError, ImportError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise ModelError(f'the model `{spec.base_model}` cannot be built: {reason(error)}') from error
    model.config.use_cache = False
    return model


def _unquantized(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return a copy of `config` for weights that are not stored quantized.

    Raises:
        ModelError: They are stored quantized, other than in MXFP4.
    """
    config = copy.deepcopy(config)
    stored = getattr(config, 'quantization_config', None)
    if stored is not None:
        method = stored.get('quant_method') if isinstance(stored, dict) else getattr(stored, 'quant_method', None)
        if method != 'mxfp4':  # transformers dequantizes it for training
            raise ModelError(f'weights stored in {method} are not supported without loading; use an unquantized base')
        del config.quantization_config
    return config


def _quantize(model: PreTrainedModel, quantization: object) -> None:
    if quantization.quant_method != 'bitsandbytes':
        name = type(quantization).__name__
        raise ModelError(f'{name} is not supported without loading, only BitsAndBytesConfig and Float8Config')
    quantizer = AutoHfQuantizer.from_config(quantization, pre_quantized=False)
    quantizer.preprocess_model(model, device_map={'': 'cpu'})
    quantizer.postprocess_model(model)
