"""Refuse a run that cannot fit its GPU, before its weights are loaded.

Only what is there for certain counts: weights, what the optimizer keeps, and gradients. Activations come on top, so a
run that passes may still need more; `xtune plan` tells.
"""

from dataclasses import dataclass

import torch

from ..config.wire import Job
from ..engine.prepare_model import add_meta_adapter
from ..errors import ModelError
from ..methods.base_model import run_dtype
from ..models.loading.hf_config import load_hf_config
from ..parallel.env import World
from .meta_model import planned_meta_model
from .optimizer_state import state_bytes_each
from .random_init import packed_bytes

GIB = 2**30


def check_fit(job: Job, world: World, device: torch.device) -> None:
    """Refuse `job` if `device` is a GPU that cannot hold it, before data are prepared and weights are loaded.

    Sharded runs pass, and so do models that planning does not support.

    Raises:
        ModelError: The run does not fit.
    """
    if device.type != 'cuda' or (world.size > 1 and job.strategy.name not in ('one_device', 'ddp')):
        return
    try:
        least = floor(job, run_dtype(job.model, device))
    except ModelError:  # loading the model tells whether it can be used at all
        return
    properties = torch.cuda.get_device_properties(device)
    check(job, least, properties.total_memory, properties.name)


@dataclass(frozen=True)
class Floor:
    """Bytes without which a run cannot be: frozen weights, and what is trained with its gradients and optimizer."""

    frozen: int
    trained: int

    @property
    def total(self) -> int:
        """Both."""
        return self.frozen + self.trained


def floor(job: Job, dtype: torch.dtype) -> Floor:
    """Return the least that a device with the whole model holds in a run that computes in `dtype`.

    Raises:
        ModelError: The model cannot be built from its config.json.
    """
    config = load_hf_config(job.values.base_model, job.load_llm)
    model = add_meta_adapter(planned_meta_model(job, config, dtype), job.model)
    frozen = trained = 0
    for parameter in model.parameters():
        if parameter.requires_grad:
            trained += parameter.numel()
        else:
            frozen += packed_bytes(parameter)
    frozen += sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    return Floor(frozen, round(trained * (4 + 4 + _state(job))))


def _state(job: Job) -> float:
    """Return the least bytes of each trained value that the optimizer keeps on a GPU; paged state may leave it."""
    return 0 if 'Paged' in job.optimizer.func.__name__ else state_bytes_each(job)


def check(job: Job, found: Floor, memory: int, gpu: str) -> None:
    """Refuse `job` if a GPU of `memory` bytes cannot hold it.

    Raises:
        ModelError: It cannot.
    """
    if found.total <= memory:
        return
    four = job.quantization is not None and getattr(job.quantization(), 'load_in_4bit', False)
    # A run on one device is not told to take the strategy that it has.
    strategy = '' if job.strategy.name.startswith('fsdp2') else ' --strategy fsdp2'
    ways = [
        (job.lora is None, 'train an adapter (a lora or qlora preset)'),
        (job.lora is not None and not four, 'take a base in 4 bits (a qlora preset)'),
        (True, f'spread it over several GPUs (NPROC_PER_NODE=2 xtune train ...{strategy})'),
    ]
    advice = ' or '.join(way for holds, way in ways if holds)
    raise ModelError(
        f'{job.values.base_model} cannot be trained so on {gpu}, which has {memory / GIB:,.1f} GiB: frozen weights '
        f'take {found.frozen / GIB:,.1f} GiB and what is trained {found.trained / GIB:,.1f} GiB (weights, gradients, '
        f'optimizer), before any activation. {advice[0].upper()}{advice[1:]}; '
        '`xtune plan` tells what fits'
    )
