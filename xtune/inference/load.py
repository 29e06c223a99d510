"""Load a model for talking or merging: a folder or hub name, with an adapter, in 4 or 8 bits."""

import sys
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..errors import ModelError
from ..hf_format.config_overrides import read_overrides, with_overrides
from ..methods.quantized_checkpoints import refuse_more_bits
from ..models.legacy.hub import legacy_folder
from ..models.loading.config_json import reason, tokenizer_error
from ..models.loading.folder_checks import check_adapter_folder, check_model_folder
from ..models.loading.model_class import loader
from ..models.loading.processor_template import with_processor_template
from ..models.loading.verify import FAILURES, checked
from ..ops.nf4_dequant import disable_cpu_inference_format_of_odd_shapes
from ..utils.device import require_bitsandbytes
from ..utils.quiet import quiet
from .adapter import other_base, with_adapter


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
        adapter: Folder of a peft adapter to put on it.
        device: Where it goes.
        dtype: Type of the weights; None: as they are stored.
        bits: 4 (NF4) or 8 (int8) quantises the weights while loading.
        variant: Which of the layouts of 2023 it has, where its config.json does not tell.
        revision: Branch, tag or commit of a hub name.
        quantization: A transformers quantisation config, instead of `bits`.

    Raises:
        ModelError: A folder is missing or empty, bitsandbytes is missing, or loading fails.
    """
    check_model_folder(model, own_code=False)
    if adapter:
        check_adapter_folder(adapter)
        _warn_of_another_base(adapter, model)
    arguments = {}
    overrides = read_overrides(adapter)
    if bits:
        _refuse_stored(model, bits)
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
                llm = with_adapter(llm, adapter)
    except ModelError:
        raise
    except FAILURES as error:
        what = f'{model} with adapter {adapter}' if adapter else model
        raise ModelError(f'{what} cannot be loaded: {reason(error)}') from error
    disable_cpu_inference_format_of_odd_shapes(llm)
    return llm.eval()


def _warn_of_another_base(adapter: str, model: str) -> None:
    trained_on = other_base(adapter, model)
    if trained_on is not None:
        print(
            f'warning: the adapter {adapter} was trained on {trained_on}; if {model} is another model, it answers '
            'otherwise than in training',
            file=sys.stderr,
        )


def _refuse_stored(model: str, bits: int) -> None:
    if legacy_folder(model, weights=False) is None:
        refuse_more_bits(model, base_config(model), bits)


def _config(model: str, variant: str | None, revision: str | None) -> PreTrainedConfig:
    folder = legacy_folder(model, revision=revision)
    if folder is None:
        return AutoConfig.from_pretrained(model, trust_remote_code=False, **_at(revision))
    from ..models.legacy.families import open_legacy

    return open_legacy(folder, variant).config


def _load(model: str, variant: str | None, **arguments: Any) -> PreTrainedModel:
    folder = legacy_folder(model, revision=arguments.get('revision'))
    if folder is not None:
        from ..models.legacy.load import load_legacy

        return load_legacy(folder, variant, **arguments)
    load = loader(model, **{key: arguments[key] for key in ('revision',) if key in arguments})
    return checked(model, *load(output_loading_info=True, ignore_mismatched_sizes=True, **arguments))


def load_tokenizer_of(
    *folders: str | None, variant: str | None = None, revision: str | None = None
) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the first folder that has one: the adapter's, then the model's.

    `revision` is that of the hub names among them.

    Raises:
        ModelError: None has one.
    """
    for name in folders:
        folder = None if name is None else legacy_folder(name, weights=False, revision=revision)
        if folder is not None:
            from ..models.legacy.tokenizers import legacy_tokenizer

            return legacy_tokenizer(folder, variant)
        if name is None or (Path(name).is_dir() and not (Path(name) / 'tokenizer_config.json').is_file()):
            continue
        try:
            with quiet():
                found = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **_at(revision))
                return with_processor_template(found, name)
        except Exception as error:  # the tokenizers library raises nothing narrower
            raise tokenizer_error(name, error) from error
    raise ModelError(f'there is no tokenizer in {" or ".join(str(f) for f in folders if f)}')


def stored_dtype(model: str, variant: str | None = None, revision: str | None = None) -> torch.dtype:
    """Return the type in which a model's weights are stored, as its config.json says.

    Raises:
        ModelError: There is no such model, or its config.json cannot be read.
    """
    folder = legacy_folder(model, revision=revision)
    if folder is not None:
        from ..models.legacy.load import legacy_dtype

        return legacy_dtype(folder, variant)
    dtype = getattr(base_config(model, revision), 'dtype', None)
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def base_config(model: str, revision: str | None = None) -> PreTrainedConfig:
    """Return the config of a model in a layout of today.

    Raises:
        ModelError: There is no such model, or its config.json cannot be read.
    """
    try:
        with quiet():
            return AutoConfig.from_pretrained(model, trust_remote_code=False, **_at(revision))
    except (OSError, ValueError, StrictDataclassError) as error:
        raise ModelError(f'the model {model} cannot be loaded: {str(error).splitlines()[0]}') from error


def _at(revision: str | None) -> dict[str, str]:
    return {'revision': revision} if revision else {}
