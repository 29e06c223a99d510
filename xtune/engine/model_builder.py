"""Builds the model of a run: in one call, or in the steps that sharded loading needs."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from ..config.adapter_start import changes_base
from ..config.specs import ModelSpec
from ..errors import CheckpointError, ModelError
from ..methods.base_model import load_base, refuse_flash_attention_batches, run_dtype
from ..methods.residual_init import InitialAdapter
from ..models.loading.meta_init import MetaInit
from . import checkpoint_io
from .prepare_model import build_llm, prepare_for_training


class SpecModelBuilder:
    """The `ModelBuilder` of a model spec.

    Args:
        spec: The model of the run.
        device: The device of this rank.
        show: Called with the model before its weights are sharded, and the compute dtype.
        batch_size: Sequences per micro-batch.
        is_packed: A sequence holds several samples.
        initial: The initial adapter of a resumed checkpoint (see methods/residual_init.py).

    Raises:
        ModelError: The device does not support the compute dtype, or a package for the quantization is missing.
    """

    def __init__(
        self,
        spec: ModelSpec,
        device: torch.device,
        show: Callable[[torch.nn.Module, torch.dtype], None],
        batch_size: int,
        is_packed: bool,
        initial: InitialAdapter | None = None,
    ) -> None:
        self.spec, self.device, self.show, self.initial = spec, device, show, initial
        self.batch_size, self.is_packed = batch_size, is_packed
        self.dtype = run_dtype(spec, device)

    def build(self) -> torch.nn.Module:
        """Return the full model with its adapter, on the device of this rank.

        Raises:
            ModelError: The model, its quantization or its adapter cannot be built.
        """
        llm, _ = build_llm(self.spec, self.device, self.initial)
        self._check(llm)
        return llm

    def load_base_on_cpu(self) -> torch.nn.Module:
        """Return the base model in CPU memory. A quantized one may be on the GPU, which quantizes faster."""
        if self.spec.quantization is not None and self.device.type == 'cuda':
            try:
                return self._load_base(self.device)
            except ModelError as error:
                if not isinstance(error.__cause__, torch.OutOfMemoryError):
                    raise
            torch.cuda.empty_cache()
            print('note: the quantized model does not fit on one GPU; the CPU quantizes it, which takes some minutes')
        return self._load_base(torch.device('cpu'))

    def meta_init(self, model: torch.nn.Module) -> MetaInit | str:
        """Return what other ranks build `model` from on the meta device, or the reason why they cannot."""
        loader = self.spec.load_llm.func
        if getattr(loader, '__name__', '') != 'from_pretrained' or not hasattr(loader, '__self__'):
            return f'llm.type={getattr(loader, "__qualname__", loader)} is a custom loader'
        return MetaInit.of(model)

    def finish(self, model: torch.nn.Module) -> torch.nn.Module:
        """Return a base model, with weights or on the meta device, with its adapter."""
        return prepare_for_training(model, self.spec, self.initial)

    def report(self, model: torch.nn.Module) -> None:
        """Show what was built."""
        self.show(model, self.dtype)

    def _load_base(self, device: torch.device) -> torch.nn.Module:
        model = load_base(self.spec, device, self.dtype)
        self._check(model)
        return model

    def _check(self, model: torch.nn.Module) -> None:
        refuse_flash_attention_batches(model, self.is_packed, self.batch_size)


def resumed_initial(lora: partial | None, checkpoint: Path | None) -> InitialAdapter | None:
    """Return the initial adapter that the run in `checkpoint` subtracted from its base; None: it subtracted none.

    Raises:
        CheckpointError: `checkpoint` was written with another lora.init_lora_weights.
    """
    if lora is None or checkpoint is None:
        return None
    start = lora.keywords.get('init_lora_weights', True)
    initial = checkpoint_io.load(checkpoint, verified=True).get('initial_adapter')
    if bool(initial) != changes_base(start):
        which = 'an adapter that started' if initial else 'no adapter that started'
        raise CheckpointError(
            f'{checkpoint} holds {which} as a part of the base, and the config says lora.init_lora_weights={start!r}: '
            'resume with the value it was trained with, or start a new run'
        )
    return initial
