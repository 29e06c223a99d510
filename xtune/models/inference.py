"""Load a model for talking or merging: a folder or hub name, with an adapter, in 4 or 8 bits."""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..errors import ModelError
from .adapter import with_adapter
from .config_file import reason, tokenizer_error
from .config_overrides import read_overrides, with_overrides
from .device import require_bitsandbytes
from .folder import check_adapter_folder, check_model_folder
from .legacy.hub import legacy_folder
from .quiet import quiet
from .unpacking import keep_what_does_not_fit
from .whole import FAILURES, checked


def load_for_inference(
    model: str,
    adapter: str | None,
    device: torch.device,
    dtype: torch.dtype | None,
    bits: int | None = None,
    variant: str | None = None,
) -> torch.nn.Module:
    """Return a causal language model in evaluation mode.

    Args:
        model: Folder or hub name of the base.
        adapter: Folder of a peft adapter to put on it.
        device: Where it goes.
        dtype: Type of the weights; None: as they are stored.
        bits: 4 (NF4) or 8 (int8) quantises the weights while loading.
        variant: Which of the layouts of 2023 it has, where its config.json does not tell.

    Raises:
        ModelError: A folder is missing or empty, bitsandbytes is missing, or loading fails.
    """
    check_model_folder(model, own_code=False)
    if adapter:
        check_adapter_folder(adapter)
    arguments = {}
    overrides = read_overrides(adapter)
    if bits:
        require_bitsandbytes(f'--bits {bits}')
        if bits == 8:
            dtype = torch.bfloat16  # int8 kernels take no float32
        arguments['quantization_config'] = BitsAndBytesConfig(
            load_in_4bit=bits == 4,
            load_in_8bit=bits == 8,
            bnb_4bit_quant_type='nf4',
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    try:
        with quiet():
            if overrides:
                arguments['config'] = with_overrides(_config(model, variant), overrides, model, adapter)
            llm = _load(model, variant, dtype=dtype or 'auto', device_map={'': str(device)}, **arguments)
            if adapter:
                llm = with_adapter(llm, adapter)
    except ModelError:
        raise
    except FAILURES as error:
        what = f'{model} with adapter {adapter}' if adapter else model
        raise ModelError(f'{what} cannot be loaded: {reason(error)}') from error
    keep_what_does_not_fit(llm)
    return llm.eval()


def _config(model: str, variant: str | None) -> PreTrainedConfig:
    folder = legacy_folder(model)
    if folder is None:
        return AutoConfig.from_pretrained(model, trust_remote_code=False)
    from .legacy.families import open_legacy

    return open_legacy(folder, variant).config


def _load(model: str, variant: str | None, **arguments: Any) -> PreTrainedModel:
    folder = legacy_folder(model)
    if folder is not None:
        from .legacy.load import load_legacy

        return load_legacy(folder, variant, **arguments)
    how = dict(trust_remote_code=False, output_loading_info=True, ignore_mismatched_sizes=True)
    loaded = AutoModelForCausalLM.from_pretrained(model, **how, **arguments)
    return checked(model, *loaded)


def load_tokenizer_of(*folders: str | None, variant: str | None = None) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the first folder that has one: the adapter's, then the model's.

    Raises:
        ModelError: None has one.
    """
    for name in folders:
        folder = None if name is None else legacy_folder(name, weights=False)
        if folder is not None:
            from .legacy.tokenizers import legacy_tokenizer

            return legacy_tokenizer(folder, variant)
        if name is None or (Path(name).is_dir() and not (Path(name) / 'tokenizer_config.json').is_file()):
            continue
        try:
            with quiet():
                return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        except Exception as error:  # the tokenizers library raises nothing narrower
            raise tokenizer_error(name, error) from error
    raise ModelError(f'there is no tokenizer in {" or ".join(str(f) for f in folders if f)}')


def stored_dtype(model: str, variant: str | None = None) -> torch.dtype:
    """Return the type in which a model's weights are stored, as its config.json says.

    Raises:
        ModelError: There is no such model, or its config.json cannot be read.
    """
    folder = legacy_folder(model)
    if folder is not None:
        from .legacy.load import legacy_dtype

        return legacy_dtype(folder, variant)
    try:
        with quiet():
            dtype = getattr(AutoConfig.from_pretrained(model, trust_remote_code=False), 'dtype', None)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise ModelError(f'the model {model} cannot be loaded: {str(error).splitlines()[0]}') from error
    return dtype if isinstance(dtype, torch.dtype) else torch.float32
