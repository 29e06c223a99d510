"""How many layers recompute their activations: as few as memory allows."""

from collections.abc import Callable, Iterable

import torch

from ..config.wire import Job
from ..data.batches import MicroBatch
from ..optimizations.activation_checkpointing import ActivationCheckpointing, CheckpointPolicy
from ..parallel.collectives import all_gather_objects
from ..tasks.sft import SupervisedFineTuning
from .activation_profiler import GpuMemory, Measured, Memory, measure

GIB = 2**30


def fit(
    task: SupervisedFineTuning, layers: ActivationCheckpointing, batch: MicroBatch, memory: Memory, state: int
) -> str:
    """Let as few layers of `task` recompute as memory allows in every process; return a line that says so.

    Args:
        task: The model and its loss, as it will train.
        layers: Its layers.
        batch: The largest micro-batch.
        memory: Where the activations lie.
        state: Bytes of optimizer state that is not there yet.
    """
    measured = measure(task, layers, batch, memory)
    limit = memory.limit() - state
    own = len(layers) if measured is None else recomputed(measured, limit)
    count = max(all_gather_objects(own))
    layers.apply(CheckpointPolicy(count))
    text = f'activations recomputed in {count} of {len(layers)} layers'
    if measured is None:
        return f'{text}: memory leaves no room to keep those of one'
    each = f'{min(measured.costs) / GIB:.2f}'
    if max(measured.costs) != min(measured.costs):
        each += f' to {max(measured.costs) / GIB:.2f}'
    planned = peak(measured, count) + state
    return f'{text}; kept: {each} GiB a layer; {planned / GIB:.1f} of {(limit + state) / GIB:.1f} GiB planned'


def recomputed(measured: Measured, limit: int) -> int:
    """Return how many layers, the first ones, must recompute for the peak to be at most `limit` bytes."""
    return next((n for n in range(len(measured.costs)) if peak(measured, n) <= limit), len(measured.costs))


def peak(measured: Measured, count: int) -> int:
    """Return the peak in bytes if the first `count` layers recompute.

    Each kept layer but the last adds what it keeps to the peak with the last one kept. (Against the peak with all
    recomputed the last adds next to nothing: in its backward pass its activations are there either way.)
    """
    if count >= len(measured.costs):
        return measured.all_recomputed
    return measured.one_kept + sum(measured.costs[count:-1])


def state_bytes(kind: type, parameters: Iterable[torch.nn.Parameter]) -> int:
    """Return what the state of an optimizer of class `kind` takes: two moments a parameter, at most."""
    # 8 bits each and scales, and small tensors in float32
    each = 3 if kind.__module__.startswith('bitsandbytes') and '8bit' in kind.__name__ else 8
    return each * sum(p.numel() for p in parameters)


def has_whole_model(job: Job, size: int) -> bool:
    """Tell whether each of `size` processes has the whole model."""
    return size == 1 or job.strategy.name in ('one_device', 'ddp')


def activations(
    job: Job,
    task: SupervisedFineTuning,
    layers: ActivationCheckpointing | None,
    size: int,
    batch: Callable[[], MicroBatch],
) -> str:
    """Do what the section `checkpointing` says about memory, and return a line about it.

    Args:
        job: The run.
        task: The model and its loss, as it will train.
        layers: Its layers; None: it has no list of them.
        size: The processes of the run.
        batch: Makes the largest micro-batch.
    """
    wanted = job.values.checkpointing
    if layers is None:
        return 'activations kept'
    everywhere = f'activations recomputed in all {len(layers)} layers'
    on_gpu = task.device.type == 'cuda'
    if wanted == 'offload':
        return everywhere + ('; what lies between them waits in host memory' if on_gpu else ': nothing to offload')
    if wanted != 'auto':
        return f'activations recomputed in {layers.num_checkpointed} of {len(layers)} layers'
    if not on_gpu:
        return f'{everywhere} (auto keeps some on GPUs only)'
    if not has_whole_model(job, size) or task.sp_group is not None:
        return f'{everywhere} (auto keeps some where each process has the whole model and whole rows)'
    state = state_bytes(job.optimizer.func, task.trained_parameters().values())
    return fit(task, layers, batch(), GpuMemory(task.device), state)
