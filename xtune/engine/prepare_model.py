"""Build the model to train: base, adapter, and activation checkpointing."""

from collections.abc import Callable
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from ..config.specs import ModelSpec
from ..methods.adapter import add_adapter
from ..methods.base_model import load_base, run_dtype
from ..methods.residual_init import InitialAdapter
from ..models.loading.meta_init import META
from ..ops.nf4_dequant import disable_cpu_inference_format
from ..optimizations.activation_checkpointing import ActivationCheckpointing, CheckpointPolicy
from ..optimizations.mrope_positions import expand_positions_to_axes
from ..parallel.collectives import broadcast_from_rank0
from ..utils.language_model import freeze_non_text_modules


def build_llm(
    spec: ModelSpec, device: torch.device, initial: InitialAdapter | None = None
) -> tuple[PreTrainedModel | PeftModel, torch.dtype]:
    """Return the model to train, on `device`, and its compute type.

    Frozen weights have the compute type; trained weights (adapters, or all) are float32, because small updates would be
    rounded away. Every rank that holds a full model makes this call.

    Args:
        spec: The model of the run.
        device: Device of this rank.
        initial: The initial adapter of the checkpoint that is resumed (see methods/residual_init.py).

    Raises:
        ModelError: The model, its quantization or its adapter cannot be built.
    """
    dtype = run_dtype(spec, device)
    return prepare_for_training(load_base(spec, device, dtype), spec, initial, broadcast_from_rank0), dtype


def prepare_for_training(
    model: PreTrainedModel,
    spec: ModelSpec,
    initial: InitialAdapter | None = None,
    broadcast: Callable[[torch.Tensor], Any] | None = None,
) -> PreTrainedModel | PeftModel:
    """Return a base model with the adapter and the activation checkpointing of `spec`.

    Args:
        model: The base model; on the meta device the adapter has no values either.
        spec: The model of the run.
        initial: See `build_llm`.
        broadcast: Overwrites a tensor in place with that of rank 0.

    Raises:
        ModelError: The adapter does not fit the model.
    """
    expand_positions_to_axes(model)
    if spec.lora is not None:
        model = add_adapter(model, spec.lora, initial, broadcast)
    else:
        freeze_non_text_modules(model)
    disable_cpu_inference_format(model)  # before the first call, for example of a parity check
    # 'auto' starts with all layers: how many fit without checkpointing is measured after the model was placed.
    policy = CheckpointPolicy.from_option(spec.activation_checkpointing)
    if policy.num_layers != 0:
        ActivationCheckpointing(model).apply(policy)
    return model


def add_meta_adapter(model: PreTrainedModel, spec: ModelSpec) -> PreTrainedModel | PeftModel:
    """Return a meta model with the adapter and the activation checkpointing of `spec`, in training mode.

    Raises:
        ModelError: The adapter does not fit the model.
    """
    with META:
        return prepare_for_training(model, spec).train()
