"""Profiles the activation memory of each decoder layer, on the real model and the largest micro-batch."""

import gc
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ..data.batches import MicroBatch
from ..optimizations.activation_checkpointing import ActivationCheckpointing, CheckpointPolicy
from ..optimizations.layer_call import LayerCall
from ..tasks.sft import SupervisedFineTuning
from ..utils.device import random_numbers

# Share of a GPU's memory left free for fragmentation, and for what libraries allocate while they compute.
MARGIN = 0.04


class Memory(Protocol):
    """The memory of a device; all figures in bytes."""

    def allocated(self) -> int:
        """Return the bytes of all tensors."""

    def peak(self) -> int:
        """Return the largest number of allocated bytes since `forget_peak`."""

    def forget_peak(self) -> None:
        """Reset the peak."""

    def limit(self) -> int:
        """Return the bytes that tensors may take."""


class GpuMemory:
    """The memory of `device` that other processes, and the rest of this one, leave to tensors."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def allocated(self) -> int:
        """Return the bytes of all tensors."""
        return torch.cuda.memory_allocated(self.device)

    def peak(self) -> int:
        """Return the largest number of allocated bytes since `forget_peak`."""
        return torch.cuda.max_memory_allocated(self.device)

    def forget_peak(self) -> None:
        """Reset the peak."""
        torch.cuda.reset_peak_memory_stats(self.device)

    def limit(self) -> int:
        """Return the bytes that are free or reserved by torch's allocator, less a margin."""
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(self.device)
        available = free + torch.cuda.memory_reserved(self.device)
        allowed = int(torch.cuda.get_per_process_memory_fraction(self.device) * total)
        return min(available, allowed) - int(MARGIN * min(total, allowed))


@dataclass(frozen=True)
class ActivationProfile:
    """Activation memory in bytes.

    Attributes:
        costs: What each layer allocates more without checkpointing, between its forward and backward pass.
        peak_all_checkpointed: The peak with all layers checkpointed.
        peak_last_plain: The peak with all but the last layer checkpointed.
    """

    costs: list[int]
    peak_all_checkpointed: int
    peak_last_plain: int


def profile_activations(
    task: SupervisedFineTuning, layers: ActivationCheckpointing, batch: MicroBatch, memory: Memory
) -> ActivationProfile | None:
    """Return the activation memory of the layers on `batch`; None: one layer without checkpointing does not fit.

    Afterwards every layer is checkpointed. Compiled code stays; gradients and random number generators are as before.
    """
    restore_random_state, training = random_numbers(task.device), task.llm.training
    task.llm.train()
    try:
        return _profile(task, layers, batch, memory)
    except torch.OutOfMemoryError:
        return None
    finally:
        layers.apply(CheckpointPolicy())
        task.drop_gradients()
        task.llm.train(training)
        restore_random_state()
        gc.collect()  # frames of an error refer to tensors in cycles


def _profile(
    task: SupervisedFineTuning, layers: ActivationCheckpointing, batch: MicroBatch, memory: Memory
) -> ActivationProfile:
    allocated_by: dict[int, int] = {}
    calls = layers.calls

    def run(plain: int | None) -> int:
        """Return the peak of a forward and backward pass with one layer `plain`, and fill `allocated_by`: the bytes
        that the forward pass of each layer leaves allocated."""
        for index, layer in enumerate(layers.layers):
            layer_call = calls.plain if index == plain else calls.checkpointed
            layer.layer_call = _metered(layer_call, index, allocated_by, memory)
        memory.forget_peak()
        task(batch).backward()
        return memory.peak()

    last = len(layers) - 1
    run(None)  # compiles, and leaves gradients, as later micro-batches of a step find them
    peak_all_checkpointed, checkpointed = run(None), dict(allocated_by)
    peak_last_plain = run(last)
    layer_types = [_layer_type(layer) for layer in layers.layers]
    costs = {layer_types[last]: allocated_by[last] - checkpointed[last]}
    # From the last: the first layer of a model saves less, because its input needs no gradient.
    for index, layer_type in reversed(list(enumerate(layer_types))):
        if layer_type not in costs:
            run(index)
            costs[layer_type] = allocated_by[index] - checkpointed[index]
    return ActivationProfile([max(costs[t], 0) for t in layer_types], peak_all_checkpointed, peak_last_plain)


def _metered(layer_call: LayerCall, index: int, allocated_by: dict[int, int], memory: Memory) -> LayerCall:
    def metered(layer: Callable, *args: Any, **kwargs: Any) -> Any:
        before = memory.allocated()
        output = layer_call(layer, *args, **kwargs)
        allocated_by[index] = memory.allocated() - before
        return output

    return metered


def _layer_type(layer: torch.nn.Module) -> Hashable:
    """Return a key that is equal for layers with the same activation memory: modules, shapes and attention windows."""
    modules = tuple((name, type(module), _window(module)) for name, module in layer.named_modules())
    return modules, tuple((name, p.shape, p.dtype, p.requires_grad) for name, p in layer.named_parameters())


def _window(module: torch.nn.Module) -> Hashable:
    names = ('sliding_window', 'layer_type', 'attention_type', 'is_sliding')
    values = (getattr(module, name, None) for name in names)
    return tuple(value if isinstance(value, Hashable) else None for value in values)
