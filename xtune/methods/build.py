"""Load the base model, quantised or not, and put the adapter on it."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from ..compat.transformers_private import attention_of
from ..config.adapter_start import changes_base
from ..config.wire import Job
from ..engine.oom_report import CHANGES, brief
from ..errors import ModelError
from ..models.legacy.hub import legacy_folder
from ..models.loading.config_json import reason
from ..models.loading.folder_checks import check_model_folder
from ..models.loading.model_class import loader
from ..models.loading.verify import LOADING_ERRORS, verify_weights
from ..ops.float8_linear import refuse_trained, to_float8_base
from ..ops.nf4_dequant import stay_trainable
from ..optimizations.activation_checkpointing import recompute, recompute_activations
from ..optimizations.activation_offloading import Offload
from ..optimizations.mrope_positions import give_each_axis_positions
from ..parallel.collectives import broadcast_from_rank0
from ..utils.device import compute_dtype, require_bitsandbytes
from ..utils.language_model import freeze_other_parts, refuse_unreached, spare_other_parts
from ..utils.quiet import quiet
from .float8_checks import float8_of
from .lora_effects import check_adapted
from .lora_names import check_names
from .lora_targets import resolve_targets
from .residual_init import InitialAdapter, subtract_initial_adapter


def build_llm(
    job: Job, device: torch.device, initial: InitialAdapter | None = None
) -> tuple[PreTrainedModel | PeftModel, torch.dtype]:
    """Return the model to train, on `device`, and its compute type.

    Frozen weights are kept in the compute type; what is trained (adapters, or all weights) is kept in float32, so that
    small updates are not rounded away. `initial` is that of a checkpoint which is resumed (see residual_init.py).
    Every process of a run that holds whole models makes this call.

    Raises:
        ModelError: The model, its quantisation or its adapter cannot be built.
    """
    dtype = run_dtype(job, device)
    return finish(load_base(job, device, dtype), job, initial, broadcast_from_rank0), dtype


def run_dtype(job: Job, device: torch.device) -> torch.dtype:
    """Return the compute type of a run on `device`.

    Raises:
        ModelError: The device does not compute in it, or what the quantisation needs is missing.
    """
    dtype = compute_dtype(job.values.precision, device)
    if job.quantization is None:
        return dtype
    if job.lora is None:
        raise ModelError('a quantised base cannot be trained itself: set lora, or quantization = None')
    if float8_of(job) is not None:
        return torch.bfloat16
    require_bitsandbytes('quantization')
    # int8 kernels take no float32
    return torch.bfloat16 if getattr(quantisation_of(job, dtype), 'load_in_8bit', False) else dtype


def load_base(job: Job, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """Return the base model, on `device`, without an adapter, for a run that computes in `dtype`.

    Raises:
        ModelError: It cannot be loaded, or not trained as the config says.
    """
    float8, quantization = float8_of(job), quantisation_of(job, dtype)
    arguments = {} if quantization is None else {'quantization_config': quantization}
    model = load_model(job, device, dtype if job.lora is not None else torch.float32, **arguments)
    model.config.use_cache = False
    flash = 'flash' in str(attention_of(model.config))
    if flash and job.values.pack and job.schedule.batch_size > 1:
        raise ModelError(
            'flash attention keeps packed samples apart only in batches of one sequence: set schedule.batch_size=1 '
            "(and accumulate more), or llm.attn_implementation='sdpa'"
        )
    _check_trainable(model, job)
    if float8 is not None:
        to_float8_base(model, float8)
    return model


def quantisation_of(job: Job, dtype: torch.dtype) -> Any:
    """Return the transformers quantisation config of a run that computes in `dtype`; None: it has none, as float8 has.

    Raises:
        ModelError: A package for it is missing, or it refuses its arguments.
    """
    if job.quantization is None or float8_of(job) is not None:
        return None
    try:
        quantization = job.quantization()
        if getattr(quantization, 'load_in_4bit', False):
            quantization = job.quantization(**_four_bit_types(job, dtype))
        return quantization
    except (ImportError, ValueError) as error:
        raise ModelError(f'the section `quantization` is refused: {reason(error)}') from error


def finish(
    model: PreTrainedModel,
    job: Job,
    initial: InitialAdapter | None = None,
    agree: Callable[[torch.Tensor], Any] | None = None,
) -> PreTrainedModel | PeftModel:
    """Return a base model with the adapter on it; without weights (on the meta device) it has none either.

    `initial` and `agree` are those of `residual_init.subtract_initial_adapter`.

    Raises:
        ModelError: The adapter does not fit the model.
    """
    give_each_axis_positions(model)
    if job.lora is not None:
        model = _add_adapter(model, job)
        start = job.lora.keywords.get('init_lora_weights')
        if changes_base(start):
            subtract_initial_adapter(model, start, initial, agree)
            model.peft_config['default'].init_lora_weights = start  # checkpoints say how the adapter began
    else:
        freeze_other_parts(model)
    stay_trainable(model)  # before any trial calls it
    recomputed = job.values.checkpointing
    if recomputed not in ('none', 0):
        # What 'auto' may keep is measured once the model is in its place.
        count = recomputed if isinstance(recomputed, int) else None
        recompute_activations(model, count, Offload() if recomputed == 'offload' else recompute)
    return model


def _four_bit_types(job: Job, dtype: torch.dtype) -> dict[str, torch.dtype]:
    """Return the types that the config leaves open. FSDP2 slices floating-point tensors only, so NF4 is one."""
    types = dict(bnb_4bit_compute_dtype=dtype)
    if job.strategy.name.startswith('fsdp2'):
        types['bnb_4bit_quant_storage'] = dtype
    return {name: value for name, value in types.items() if name not in job.quantization.keywords}


def _check_trainable(model: PreTrainedModel, job: Job) -> None:
    quantizer = getattr(model, 'hf_quantizer', None)
    if quantizer is not None and job.lora is None and not getattr(quantizer.quantization_config, 'dequantize', False):
        raise ModelError('a quantised base cannot be trained itself: set lora, or take a base that is not quantised')
    if quantizer is not None and not quantizer.is_trainable:
        method = getattr(quantizer.quantization_config, 'quant_method', 'this quantisation')
        raise ModelError(
            f'transformers cannot train adapters on weights in {method}: take a base that is not quantised (for MXFP4: '
            'uninstall the package `kernels`, then transformers unpacks the weights while loading)'
        )


def load_model(job: Job, device: torch.device, dtype: torch.dtype, **arguments) -> PreTrainedModel:
    """Return the base model of `job` on `device`.

    Raises:
        ModelError: It cannot be loaded.
    """
    name = job.values.base_model
    check_model_folder(name)
    try:
        with quiet():
            return _load(job, dtype=dtype, device_map={'': str(device)}, **arguments)
    except ModelError:
        raise
    except torch.OutOfMemoryError as error:
        raise ModelError(f'the model `{name}` does not fit into memory: {brief(error)} {CHANGES}') from error
    except LOADING_ERRORS as error:
        raise ModelError(f'the model `{name}` cannot be loaded: {reason(error)}') from error


def _load(job: Job, **arguments) -> PreTrainedModel:
    name, given = job.values.base_model, job.load_llm.keywords
    if job.load_llm.func != AutoModelForCausalLM.from_pretrained:
        return job.load_llm(**arguments)
    folder = legacy_folder(name, revision=given.get('revision'))
    if folder is None:
        load = loader(name, **given)
        return verify_weights(name, *load(output_loading_info=True, ignore_mismatched_sizes=True, **arguments))
    from ..models.legacy.load import load_legacy, training_notes

    for note in training_notes(folder, given.get('variant'), job.values.max_length, job.lora is None):
        print(f'note: {note}')
    return load_legacy(folder, **{**given, **arguments})


def _add_adapter(model: PreTrainedModel, job: Job) -> PeftModel:
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    try:
        with quiet():
            own = changes_base(job.lora.keywords.get('init_lora_weights'))
            config = job.lora(init_lora_weights=True) if own else job.lora()  # `finish` starts it
            if getattr(config, 'is_prompt_learning', False):
                raise ValueError(
                    f'{type(config).__name__} puts virtual tokens before the text, which the loss cannot place'
                )
            given = copy.deepcopy(config)  # the two below change it
            check_names(given, model)
            spare_other_parts(model, config)
            said = resolve_targets(model, config)
            model = get_peft_model(model, config)
            check_adapted(given, model)
            refuse_trained(model)
            refuse_unreached(model)
            for parameter in model.parameters():  # peft leaves modules_to_save in the base's type
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()
        if said:
            print(f'note: {said}')
        return model
    except ModelError:
        raise
    except (ValueError, TypeError, KeyError, ImportError) as error:
        raise ModelError(f'the adapter of section `lora` does not fit the model: {reason(error)}') from error
