"""What the activations of each layer take, on the real model and the largest micro-batch."""

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

# Of a GPU's memory: blocks of freed memory that fit nothing, and what libraries take while they compute.
MARGIN = 0.04


class Memory(Protocol):
    """Where activations lie; all in bytes."""

    def allocated(self) -> int:
        """Return what tensors take now."""

    def peak(self) -> int:
        """Return what they took at most since `forget_peak`."""

    def forget_peak(self) -> None:
        """Begin to look for a peak."""

    def limit(self) -> int:
        """Return what they may take."""


class GpuMemory:
    """The memory of `device`, as far as other processes and the rest of this one leave it to tensors."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def allocated(self) -> int:
        """Return what tensors take now."""
        return torch.cuda.memory_allocated(self.device)

    def peak(self) -> int:
        """Return what they took at most since `forget_peak`."""
        return torch.cuda.max_memory_allocated(self.device)

    def forget_peak(self) -> None:
        """Begin to look for a peak."""
        torch.cuda.reset_peak_memory_stats(self.device)

    def limit(self) -> int:
        """Return what they may take: what is free and what torch holds already, less a margin."""
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(self.device)
        ours = free + torch.cuda.memory_reserved(self.device)
        allowed = int(torch.cuda.get_per_process_memory_fraction(self.device) * total)
        return min(ours, allowed) - int(MARGIN * min(total, allowed))


@dataclass(frozen=True)
class Measured:
    """Bytes. `costs`: what each layer keeps more if it does not recompute; `all_recomputed`, `one_kept`: the peak with
    every layer recomputed, and with the last one kept."""

    costs: list[int]
    all_recomputed: int
    one_kept: int


def measure(
    task: SupervisedFineTuning, layers: ActivationCheckpointing, batch: MicroBatch, memory: Memory
) -> Measured | None:
    """Return what the layers take on `batch`; None: it does not even fit with one of them kept.

    Nothing remains but what was compiled: no gradient, no change of random numbers; every layer recomputes.
    """
    back, training = random_numbers(task.device), task.llm.training
    task.llm.train()
    try:
        return _measured(task, layers, batch, memory)
    except torch.OutOfMemoryError:
        return None
    finally:
        layers.apply(CheckpointPolicy())
        task.drop_gradients()
        task.llm.train(training)
        back()
        gc.collect()  # frames of an error hold tensors in circles


def _measured(
    task: SupervisedFineTuning, layers: ActivationCheckpointing, batch: MicroBatch, memory: Memory
) -> Measured:
    taken: dict[int, int] = {}
    calls = layers.calls

    def run(kept: int | None) -> int:
        """Return the peak of a forward and backward pass; `taken` is what each layer left behind in the forward."""
        for number, layer in enumerate(layers.layers):
            layer.layer_call = _metered(calls.plain if number == kept else calls.checkpointed, number, taken, memory)
        memory.forget_peak()
        task(batch).backward()
        return memory.peak()

    last = len(layers) - 1
    run(None)  # compiles, and leaves gradients, which later micro-batches of a step find
    all_recomputed, borders = run(None), dict(taken)
    one_kept = run(last)
    kinds = [_kind(layer) for layer in layers.layers]
    costs = {kinds[last]: taken[last] - borders[last]}
    for number, kind in reversed(list(enumerate(kinds))):  # the first one keeps less: its input needs no gradient
        if kind not in costs:
            run(number)
            costs[kind] = taken[number] - borders[number]
    return Measured([max(costs[kind], 0) for kind in kinds], all_recomputed, one_kept)


def _metered(layer_call: LayerCall, number: int, taken: dict[int, int], memory: Memory) -> LayerCall:
    def metered(layer: Callable, *args: Any, **kwargs: Any) -> Any:
        before = memory.allocated()
        made = layer_call(layer, *args, **kwargs)
        taken[number] = memory.allocated() - before
        return made

    return metered


def _kind(layer: torch.nn.Module) -> Hashable:
    """Return what layers have in common that keep equally much: their parts, shapes and attention windows."""
    parts = tuple((name, type(module), _window(module)) for name, module in layer.named_modules())
    return parts, tuple((name, p.shape, p.dtype, p.requires_grad) for name, p in layer.named_parameters())


def _window(module: torch.nn.Module) -> Hashable:
    found = (getattr(module, name, None) for name in ('sliding_window', 'layer_type', 'attention_type', 'is_sliding'))
    return tuple(value if isinstance(value, Hashable) else None for value in found)
