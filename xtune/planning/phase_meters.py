"""What counts bytes, on a GPU or anywhere, and an optimizer that reads it at each part of a step."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ..engine.optimizer import StepOptimizer
from .internals import FakeTensorMode
from .live_bytes import LiveBytes


class Meter(Protocol):
    """Counts bytes: those alive now, and the most since the last `reset`."""

    now: int
    peak: int

    def reset(self) -> None: ...


class CudaMeter:
    """The allocator of a GPU.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.begin = device, torch.cuda.memory_allocated(device)

    def __enter__(self) -> 'CudaMeter':
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    @property
    def now(self) -> int:
        """Bytes allocated since the meter was made."""
        return torch.cuda.memory_allocated(self.device) - self.begin

    @property
    def peak(self) -> int:
        """The most of them since `reset`."""
        return torch.cuda.max_memory_allocated(self.device) - self.begin

    def reset(self) -> None:
        """Forget the peak."""
        torch.cuda.reset_peak_memory_stats(self.device)


@contextmanager
def without_values() -> Iterator[LiveBytes]:
    """Return a context in which tensors have no values, and what counts them."""
    _fill_caches()
    with FakeTensorMode(allow_non_fake_inputs=True), Counter(without_values=True) as live:
        yield live


def _fill_caches() -> None:
    """Let bitsandbytes make the tables that it keeps for the whole process, which must have values for other uses."""
    if importlib.util.find_spec('bitsandbytes') is not None:
        from bitsandbytes.functional import quantize_4bit

        for kind in ('nf4', 'fp4'):
            quantize_4bit(torch.ones(64, 64), compress_statistics=True, quant_type=kind)


class Counter(LiveBytes):
    """A meter of tensors, with values or without."""

    def reset(self) -> None:
        """Forget the peak."""
        self.peak = self.now


@dataclass(frozen=True)
class Phase:
    """Bytes: the most during a part of a step, and what is left after it."""

    peak: int
    after: int


class Marked(StepOptimizer):
    """The optimizer of a run, which notes each part of a step as it ends."""

    def __init__(self, plain: StepOptimizer, meter: Meter) -> None:
        super().__init__(plain.optimizer, plain.max_grad_norm)
        self.meter, self.phases, self._number = meter, {}, 0

    def mark(self, name: str) -> None:
        """End a part of the step."""
        self.phases[name] = Phase(self.meter.peak, self.meter.now)
        self.meter.reset()

    def loss_done(self, _gradient: torch.Tensor) -> None:
        """Note that the backward pass has reached the layers."""
        self.mark(f'loss {self._number}')

    def layers_done(self, _gradient: torch.Tensor) -> None:
        """Note that the backward pass has reached the embedding."""
        self.mark(f'backward {self._number}')

    def loss(self, task: Callable[[Any], torch.Tensor], batch: Any) -> torch.Tensor:
        found = super().loss(task, batch)
        self.mark(f'forward {self._number}')
        return found

    def backward(self, loss: torch.Tensor, last: bool = True, **more: Any) -> None:
        super().backward(loss, last, **more)
        reached = f'backward {self._number}' in self.phases
        self.mark(f'{"ends" if reached else "backward"} {self._number}')
        self._number += 1

    def clip(self) -> torch.Tensor:
        found = super().clip()
        self.mark('clip')
        return found

    def zero_grad(self, **more: Any) -> None:
        self.mark('step')
        super().zero_grad(**more)
