"""Load the base model of a run, quantized or not, without an adapter."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from ..compat.transformers_private import attention_of
from ..config.specs import ModelSpec
from ..errors import ModelError
from ..models.legacy.hub import legacy_folder
from ..models.loading.config_json import reason
from ..models.loading.folder_checks import check_model_folder
from ..models.loading.model_class import loader
from ..models.loading.verify import LOADING_ERRORS, verify_weights
from ..ops.float8_linear import to_float8_base
from ..utils.device import compute_dtype, require_bitsandbytes
from ..utils.out_of_memory import ADVICE, short_message
from ..utils.quiet import quiet
from .float8_checks import float8_config


def run_dtype(spec: ModelSpec, device: torch.device) -> torch.dtype:
    """Return the compute type of a run on `device`.

    Raises:
        ModelError: The device does not support it, the run would train a quantized base, or a package for the
            quantization is missing.
    """
    dtype = compute_dtype(spec.precision, device)
    if spec.quantization is None:
        return dtype
    if spec.lora is None:
        raise ModelError('a quantized base cannot be trained: set lora, or quantization = None')
    if float8_config(spec.quantization) is not None:
        return torch.bfloat16
    require_bitsandbytes('quantization')
    # int8 kernels do not support float32
    is_int8 = getattr(build_quantization_config(spec, dtype), 'load_in_8bit', False)
    return torch.bfloat16 if is_int8 else dtype


def load_base(spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """Return the base model on `device`, without an adapter.

    Args:
        spec: The model of the run.
        device: Device of the weights.
        dtype: The compute type of the run; frozen weights have this type, weights to train are float32.

    Raises:
        ModelError: It cannot be loaded, or not trained as the config requires.
    """
    float8 = float8_config(spec.quantization)
    quantization = build_quantization_config(spec, dtype)
    arguments = {} if quantization is None else {'quantization_config': quantization}
    model = load_model(spec, device, dtype if spec.lora is not None else torch.float32, **arguments)
    model.config.use_cache = False
    _check_trainable(model, adapter=spec.lora is not None)
    if float8 is not None:
        to_float8_base(model, float8)
    return model


def build_quantization_config(spec: ModelSpec, dtype: torch.dtype) -> Any:
    """Return the transformers quantization config of section `quantization`; None without one, and for float8.

    Args:
        spec: The model of the run.
        dtype: The compute type of the run, also of 4-bit weights unless the section sets another one.

    Raises:
        ModelError: A package is missing, or the class refuses the arguments.
    """
    quantization = spec.quantization
    if quantization is None or float8_config(quantization) is not None:
        return None
    try:
        config = quantization()
        if getattr(config, 'load_in_4bit', False):
            types = dict(bnb_4bit_compute_dtype=dtype)
            if spec.float_quant_storage:
                types['bnb_4bit_quant_storage'] = dtype
            config = quantization(**{key: value for key, value in types.items() if key not in quantization.keywords})
        return config
    except (ImportError, ValueError) as error:
        raise ModelError(f'the section `quantization` is invalid: {reason(error)}') from error


def load_model(spec: ModelSpec, device: torch.device, dtype: torch.dtype, **arguments: Any) -> PreTrainedModel:
    """Return the model `spec.base_model` on `device`; `arguments` are those of from_pretrained.

    Raises:
        ModelError: It cannot be loaded.
    """
    name = spec.base_model
    check_model_folder(name)
    try:
        with quiet():
            return _load(spec, dtype=dtype, device_map={'': str(device)}, **arguments)
    except ModelError:
        raise
    except torch.OutOfMemoryError as error:
        raise ModelError(f'the model `{name}` does not fit into memory: {short_message(error)} {ADVICE}') from error
    except LOADING_ERRORS as error:
        raise ModelError(f'the model `{name}` cannot be loaded: {reason(error)}') from error


def refuse_flash_attention_batches(model: torch.nn.Module, packed: bool, batch_size: int) -> None:
    """Refuse flash attention with packed samples in batches of several sequences.

    Raises:
        ModelError: `model` uses flash attention, and `batch_size` sequences per batch are `packed`.
    """
    if packed and batch_size > 1 and 'flash' in str(attention_of(model.config)):
        raise ModelError(
            'flash attention separates packed samples only in batches of one sequence: set schedule.batch_size=1 '
            "(and accumulate more), or llm.attn_implementation='sdpa'"
        )


def _check_trainable(model: PreTrainedModel, adapter: bool) -> None:
    quantizer = getattr(model, 'hf_quantizer', None)
    if quantizer is not None and not adapter and not getattr(quantizer.quantization_config, 'dequantize', False):
        raise ModelError('a quantized base cannot be trained: set lora, or use a base that is not quantized')
    if quantizer is not None and not quantizer.is_trainable:
        method = getattr(quantizer.quantization_config, 'quant_method', 'this quantization')
        raise ModelError(
            f'transformers cannot train adapters on weights in {method}: use a base that is not quantized (for MXFP4: '
            'uninstall the package `kernels`, then transformers dequantizes the weights while loading)'
        )


def _load(spec: ModelSpec, **arguments: Any) -> PreTrainedModel:
    name, section = spec.base_model, spec.load_llm.keywords
    if spec.load_llm.func != AutoModelForCausalLM.from_pretrained:
        return spec.load_llm(**arguments)
    folder = legacy_folder(name, revision=section.get('revision'))
    if folder is None:
        load = loader(name, **section)
        return verify_weights(name, *load(output_loading_info=True, ignore_mismatched_sizes=True, **arguments))
    from ..models.legacy.load import load_legacy, training_notes

    for note in training_notes(folder, section.get('variant'), spec.max_length, spec.lora is None):
        print(f'note: {note}')
    return load_legacy(folder, **{**section, **arguments})
