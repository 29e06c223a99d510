"""Load a model for inference or merging: a folder or hub name, optionally with an adapter and in 4 or 8 bits."""

import sys
from typing import Any

import torch
from transformers import (
    AutoConfig,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from ..errors import ModelError
from ..hf_format.config_overrides import read_overrides, with_overrides
from ..methods.quantized_checkpoints import refuse_more_bits
from ..models.legacy.hub import legacy_folder
from ..models.loading.config_json import reason
from ..models.loading.folder_checks import check_adapter_folder, check_model_folder
from ..models.loading.model_class import loader
from ..models.loading.verify import LOADING_ERRORS, verify_weights
from ..ops.nf4_dequant import disable_cpu_inference_format_of_odd_shapes
from ..utils.device import require_bitsandbytes
from ..utils.quiet import quiet
from .adapter import attach_adapter, other_base
from .base_config import base_config, revision_argument


def load_for_inference(
    model: str,
    adapter: str | None,
    device: torch.device,
    dtype: torch.dtype | None,
    bits: int | None = None,
    variant: str | None = None,
    revision: str | None = None,
    quantization: Any = None,
) -> torch.nn.Module:
    """Return a causal language model in evaluation mode.

    Args:
        model: Folder or hub name of the base.
        adapter: Folder of a peft adapter to attach.
        device: Device of the weights.
        dtype: Type of the weights; None keeps the stored type.
        bits: 4 (NF4) or 8 (int8) quantizes the weights while loading.
        variant: Variant of a 2023 remote-code checkpoint, if its config.json is ambiguous.
        revision: Branch, tag or commit of a hub name.
        quantization: A transformers quantization config, instead of `bits`.

    Raises:
        ModelError: A folder is missing or empty, bitsandbytes is missing, or loading fails.
    """
    check_model_folder(model, allow_remote_code=False)
    if adapter:
        check_adapter_folder(adapter)
        _warn_of_other_base(adapter, model)
    arguments = {}
    overrides = read_overrides(adapter)
    if bits:
        dtype = torch.bfloat16 if bits == 8 else dtype  # int8 kernels do not support float32
        arguments['quantization_config'] = _bitsandbytes_config(model, bits, dtype)
    if quantization is not None:
        arguments['quantization_config'] = quantization
    try:
        with quiet():
            if revision:
                arguments['revision'] = revision
            if overrides:
                arguments['config'] = with_overrides(_config(model, variant, revision), overrides, model, adapter)
            llm = _load(model, variant, dtype=dtype or 'auto', device_map={'': str(device)}, **arguments)
            if adapter:
                llm = attach_adapter(llm, adapter)
    except ModelError:
        raise
    except LOADING_ERRORS as error:
        name = f'{model} with adapter {adapter}' if adapter else model
        raise ModelError(f'{name} cannot be loaded: {reason(error)}') from error
    disable_cpu_inference_format_of_odd_shapes(llm)
    return llm.eval()


def _warn_of_other_base(adapter: str, model: str) -> None:
    trained_on = other_base(adapter, model)
    if trained_on is not None:
        print(
            f'warning: the adapter {adapter} was trained on {trained_on}; if {model} is a different model, its answers '
            'will differ from those in training',
            file=sys.stderr,
        )


def _bitsandbytes_config(model: str, bits: int, dtype: torch.dtype | None) -> BitsAndBytesConfig:
    """Return the quantization config of `--bits`.

    Raises:
        ModelError: `model` is pre-quantized, or bitsandbytes is missing.
    """
    if legacy_folder(model, weights=False) is None:
        refuse_more_bits(model, base_config(model), bits)
    require_bitsandbytes(f'--bits {bits}')
    return BitsAndBytesConfig(
        load_in_4bit=bits == 4,
        load_in_8bit=bits == 8,
        bnb_4bit_quant_type='nf4',
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _config(model: str, variant: str | None, revision: str | None) -> PreTrainedConfig:
    folder = legacy_folder(model, revision=revision)
    if folder is None:
        return AutoConfig.from_pretrained(model, trust_remote_code=False, **revision_argument(revision))
    from ..models.legacy.families import open_legacy

    return open_legacy(folder, variant).config


def _load(model: str, variant: str | None, **arguments: Any) -> PreTrainedModel:
    folder = legacy_folder(model, revision=arguments.get('revision'))
    if folder is not None:
        from ..models.legacy.load import load_legacy

        return load_legacy(folder, variant, **arguments)
    load = loader(model, **{key: arguments[key] for key in ('revision',) if key in arguments})
    return verify_weights(model, *load(output_loading_info=True, ignore_mismatched_sizes=True, **arguments))
