"""Where a run's model comes to lie: whole on this process' device, or in slices over all of them."""

from collections.abc import Callable
from pathlib import Path

import torch

from ..config.adapter_start import changes_base
from ..config.wire import Job
from ..errors import CheckpointError, ModelError
from ..methods.base_model import load_base, refuse_flash_attention_batches, run_dtype
from ..methods.residual_init import InitialAdapter
from ..models.loading.meta_init import MetaInit
from ..parallel.compatibility import SHARDED_WEIGHTS
from ..parallel.fsdp import shard
from ..parallel.rank0_loading import load_on_rank0
from ..parallel.rendezvous import Rendezvous
from ..parallel.zero import partition
from . import checkpoint_io
from .prepare_model import build_llm, prepare_for_training
from .zero_config import zero_config


def build_spread(
    job: Job,
    device: torch.device,
    rendezvous: Rendezvous | None,
    show: Callable[[torch.nn.Module, torch.dtype], None],
    initial: InitialAdapter | None = None,
) -> tuple[torch.nn.Module, torch.dtype]:
    """Return the model to train, where the strategy of `job` wants it, and its compute type.

    Args:
        job: The run.
        device: Of this process.
        rendezvous: Of the processes of the run; None: there is one.
        show: Called with the model before it is sliced, and the compute type.
        initial: The initial adapter of a checkpoint that is resumed (see methods/residual_init.py).

    Raises:
        ModelError: The model, its quantisation or its adapter cannot be built.
        ConfigError: DeepSpeed is missing or refuses its configuration.
    """
    name = job.strategy.name
    if rendezvous is None or name not in SHARDED_WEIGHTS:
        llm, dtype = build_llm(job.model, device, initial)
        refuse_flash_attention_batches(llm, bool(job.values.pack), job.schedule.batch_size)
        show(llm, dtype)
        return llm, dtype
    dtype = run_dtype(job.model, device)
    llm, weights = load_on_rank0(
        lambda: _on_host(job, device, dtype),
        lambda model: _blueprint(job, model),
        lambda model: prepare_for_training(model, job.model, initial),
        rendezvous,
    )
    show(llm, dtype)
    if name.startswith('fsdp2'):
        return shard(llm, weights, device, dtype, offload=name.endswith('offload')), dtype
    partition(llm, weights, zero_config(job, rendezvous.world.size, dtype), device, rendezvous.world.local_rank)
    return llm, dtype


def resumed_initial(job: Job, checkpoint: Path | None) -> InitialAdapter | None:
    """Return the initial adapter that the run in `checkpoint` took out of its base; None: the base is as it was.

    Raises:
        CheckpointError: `checkpoint` was written with another lora.init_lora_weights.
    """
    if job.lora is None or checkpoint is None:
        return None
    start = job.lora.keywords.get('init_lora_weights', True)
    initial = checkpoint_io.load(checkpoint, verified=True).get('initial_adapter')
    if bool(initial) != changes_base(start):
        which = 'an adapter that started' if initial else 'no adapter that started'
        raise CheckpointError(
            f'{checkpoint} holds {which} as a part of the base, and the config says lora.init_lora_weights={start!r}: '
            'resume with the value it was trained with, or start anew'
        )
    return initial


def _blueprint(job: Job, model: torch.nn.Module) -> MetaInit | str:
    """Return what the model can be built again from, or why it cannot be."""
    loader = job.load_llm.func
    if getattr(loader, '__name__', '') != 'from_pretrained' or not hasattr(loader, '__self__'):
        return f'llm.type={getattr(loader, "__qualname__", loader)} is a custom loader'
    return MetaInit.of(model)


def _on_host(job: Job, device: torch.device, dtype: torch.dtype) -> torch.nn.Module:
    """Return the base model in host memory; one that is quantised may be on the GPU, which is faster at that."""
    if job.quantization is not None and device.type == 'cuda':
        try:
            return _load_base(job, device, dtype)
        except ModelError as error:
            if not isinstance(error.__cause__, torch.OutOfMemoryError):
                raise
        torch.cuda.empty_cache()
        print('note: the quantised model does not fit on one GPU; the CPU quantises it, which takes some minutes')
    return _load_base(job, torch.device('cpu'), dtype)


def _load_base(job: Job, device: torch.device, dtype: torch.dtype) -> torch.nn.Module:
    model = load_base(job.model, device, dtype)
    refuse_flash_attention_batches(model, bool(job.values.pack), job.schedule.batch_size)
    return model
