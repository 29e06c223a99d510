"""Meters of allocated bytes, on a GPU or for any tensors, and an optimizer that reads them at each phase of a step."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ..compat.torch_tracing_private import FakeTensorMode
from ..data.batches import MicroBatch
from ..engine.strategies import Replicated
from .live_bytes import LiveBytes


class Meter(Protocol):
    """Counts bytes: those allocated now, and the most since the last `reset_peak`."""

    allocated: int
    peak: int

    def reset_peak(self) -> None: ...


class CudaMeter:
    """Reads the allocator of a GPU.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.baseline = device, torch.cuda.memory_allocated(device)

    def __enter__(self) -> 'CudaMeter':
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    @property
    def allocated(self) -> int:
        """Bytes allocated since the meter was created."""
        return torch.cuda.memory_allocated(self.device) - self.baseline

    @property
    def peak(self) -> int:
        """The most of them since `reset_peak`."""
        return torch.cuda.max_memory_allocated(self.device) - self.baseline

    def reset_peak(self) -> None:
        """Start a new peak."""
        torch.cuda.reset_peak_memory_stats(self.device)


class TensorMeter(LiveBytes):
    """Counts tensors on any device, with or without values."""

    def reset_peak(self) -> None:
        """Start a new peak."""
        self.peak = self.allocated


@contextmanager
def fake_tensors() -> Iterator[TensorMeter]:
    """Return a context in which new tensors are fake, and the meter that counts them."""
    _fill_caches()
    with FakeTensorMode(allow_non_fake_inputs=True), TensorMeter(fake=True) as meter:
        yield meter


def _fill_caches() -> None:
    """Make bitsandbytes create its lookup tables, which it caches for the process, with real values."""
    if importlib.util.find_spec('bitsandbytes') is not None:
        from bitsandbytes.functional import quantize_4bit

        for quant_type in ('nf4', 'fp4'):
            quantize_4bit(torch.ones(64, 64), compress_statistics=True, quant_type=quant_type)


@dataclass(frozen=True)
class Phase:
    """Bytes of one phase of a step: its peak, and what is allocated at its end."""

    peak: int
    allocated: int


class PhaseStrategy(Replicated):
    """The strategy of a run, which records each phase of a step as it ends.

    Phases of micro-batch N: `forward N`, `loss N` (backward pass of the loss), `backward N` (of the layers),
    `embedding N` (backward pass of the embedding); then `clip` and `step`.
    """

    def __init__(self, meter: Meter) -> None:
        self.meter, self.phases, self._micro_batch = meter, {}, 0

    def end_phase(self, name: str) -> None:
        """Record a phase that ends now."""
        self.phases[name] = Phase(self.meter.peak, self.meter.allocated)
        self.meter.reset_peak()

    def loss_done(self, _grad: torch.Tensor) -> None:
        """Record that the backward pass has reached the layers."""
        self.end_phase(f'loss {self._micro_batch}')

    def layers_done(self, _grad: torch.Tensor) -> None:
        """Record that the backward pass has reached the embedding."""
        self.end_phase(f'backward {self._micro_batch}')

    def forward(self, micro_batch: MicroBatch) -> torch.Tensor:
        loss = super().forward(micro_batch)
        self.end_phase(f'forward {self._micro_batch}')
        return loss

    def backward(self, loss: torch.Tensor, is_last: bool) -> None:
        super().backward(loss, is_last)
        at_embedding = f'backward {self._micro_batch}' in self.phases
        self.end_phase(f'{"embedding" if at_embedding else "backward"} {self._micro_batch}')
        self._micro_batch += 1

    def reduce_and_clip(self, max_grad_norm: float | None) -> torch.Tensor:
        norm = super().reduce_and_clip(max_grad_norm)
        self.end_phase('clip')
        return norm

    def zero_grad(self) -> None:
        self.end_phase('step')
        super().zero_grad()
