"""Chooses how many layers to checkpoint: as few as memory allows."""

from collections.abc import Callable, Iterable

import torch

from ..data.batches import MicroBatch
from ..optimizations.activation_checkpointing import ActivationCheckpointing, CheckpointPolicy
from ..parallel.collectives import all_gather_objects
from ..tasks.sft import SupervisedFineTuning
from .activation_profiler import ActivationProfile, GpuMemory, Memory, profile_activations

GIB = 2**30


def checkpoint_fewest_layers(
    task: SupervisedFineTuning, layers: ActivationCheckpointing, batch: MicroBatch, memory: Memory, state: int
) -> str:
    """Checkpoint as few layers of `task` as memory allows on every rank; return a line for the summary.

    Args:
        task: The model and its loss, as it will train.
        layers: Its layers.
        batch: The largest micro-batch.
        memory: The memory of the device.
        state: Bytes of optimizer state that is not allocated yet.
    """
    profile = profile_activations(task, layers, batch, memory)
    limit = memory.limit() - state
    needed = len(layers) if profile is None else fewest_checkpointed(profile, limit)
    count = max(all_gather_objects(needed))
    layers.apply(CheckpointPolicy(count))
    text = _layers_text(layers)
    if profile is None:
        return f'{text} (no memory for one layer without it)'
    cost = f'{min(profile.costs) / GIB:.2f}'
    if max(profile.costs) != min(profile.costs):
        cost += f' to {max(profile.costs) / GIB:.2f}'
    planned = peak(profile, count) + state
    return f'{text}; without: {cost} GiB a layer; {planned / GIB:.1f} of {(limit + state) / GIB:.1f} GiB planned'


def fewest_checkpointed(profile: ActivationProfile, limit: int) -> int:
    """Return how many of the first layers must be checkpointed for the peak to be at most `limit` bytes."""
    return next((n for n in range(len(profile.costs)) if peak(profile, n) <= limit), len(profile.costs))


def peak(profile: ActivationProfile, count: int) -> int:
    """Return the peak in bytes if the first `count` layers are checkpointed.

    Each other layer but the last adds its cost to the peak with only the last one not checkpointed. (The last one adds
    next to nothing to the peak with all checkpointed: its activations exist during its backward pass either way.)
    """
    if count >= len(profile.costs):
        return profile.peak_all_checkpointed
    return profile.peak_last_plain + sum(profile.costs[count:-1])


def state_bytes(optimizer_class: type, parameters: Iterable[torch.nn.Parameter]) -> int:
    """Return an upper bound of the bytes of an optimizer's state: two moments per parameter."""
    # 8-bit moments also have scales, and are in float32 for small tensors.
    is_8bit = optimizer_class.__module__.startswith('bitsandbytes') and '8bit' in optimizer_class.__name__
    return (3 if is_8bit else 8) * sum(p.numel() for p in parameters)


def apply_checkpointing(
    option: int | str,
    task: SupervisedFineTuning,
    layers: ActivationCheckpointing | None,
    is_replicated: bool,
    optimizer_class: type,
    batch: Callable[[], MicroBatch],
) -> str:
    """Apply the option `activation_checkpointing`, and return a line about it for the summary.

    Args:
        option: Its value.
        task: The model and its loss, as it will train.
        layers: Its layers; None: it has no list of layers.
        is_replicated: Each rank holds the full model.
        optimizer_class: The class of the optimizer.
        batch: Makes the largest micro-batch.
    """
    if layers is None:
        return 'no activation checkpointing'
    on_gpu = task.device.type == 'cuda'
    if option == 'offload':
        return _layers_text(layers) + ('; layer inputs offloaded to CPU' if on_gpu else '; nothing to offload on a CPU')
    if option != 'auto':
        return _layers_text(layers)
    if not on_gpu:
        return f'{_layers_text(layers)} (auto: fewer on GPUs only)'
    if not is_replicated or task.sp_group is not None:
        return f'{_layers_text(layers)} (auto: fewer only where each rank has the full model and full sequences)'
    state = state_bytes(optimizer_class, task.trained_parameters().values())
    return checkpoint_fewest_layers(task, layers, batch(), GpuMemory(task.device), state)


def _layers_text(layers: ActivationCheckpointing) -> str:
    return f'activation checkpointing in {layers.num_checkpointed} of {len(layers)} layers'
