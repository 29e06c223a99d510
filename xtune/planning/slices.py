"""Train some layers of a model for a few steps and note what memory each part of a step takes.

The model is built and trained by the code of `xtune train`, from random weights; micro-batches are full, and every
token in them is trained. On a GPU the allocator counts and a clock runs. Elsewhere the step runs on tensors without
values.
"""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from statistics import median
from typing import Any, Protocol

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedModel

from ..config.wire import Job
from ..data.batches import MicroBatch
from ..engine.fast import fast_task
from ..engine.optimizer import StepOptimizer, build_optimizer
from ..models.finetune import SupervisedFineTuning
from ..models.quiet import quiet
from ..parallel.world import ALONE
from .attention import is_packed
from .frame import adapted, fill
from .states import counted_optimizer, make_state
from .tracker import LiveBytes

# Micro-batches whose times are compared, and how often.
FEW, MANY, TIMES = 1, 3, 3


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


@dataclass(frozen=True)
class Phase:
    """Bytes: the most during a part of a step, and what is left after it."""

    peak: int
    after: int


@dataclass(frozen=True)
class Slice:
    """What a model of some layers took.

    `before` are the bytes between steps. `phases` are those of a step of two micro-batches: forward, backward (of the
    layers), ends (backward of the embedding) with the number of the micro-batch; clip, step. Before them are frozen
    (the weights that are not trained) and ready (the model, and no state of the optimizer). `seconds` are those of a
    micro-batch and of the rest of a step; None: no clock ran.
    """

    before: int
    phases: dict[str, Phase]
    seconds: tuple[float, float] | None = None


class Marked(StepOptimizer):
    """The optimizer of a run, which notes each part of a step as it ends."""

    def __init__(self, plain: StepOptimizer, meter: Meter) -> None:
        super().__init__(plain.optimizer, plain.max_grad_norm)
        self.meter, self.phases, self._number = meter, {}, 0

    def mark(self, name: str) -> None:
        """End a part of the step."""
        self.phases[name] = Phase(self.meter.peak, self.meter.now)
        self.meter.reset()

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


def full_batch(vocabulary: int, rows: int, length: int, packed: bool = False) -> MicroBatch:
    """Return `rows` of `length` random tokens, all of them trained; if `packed`, two samples a row."""
    ids = torch.randint(vocabulary, (rows, length))
    targets = ids.roll(-1, 1)
    positions = torch.arange(length).remainder(-(-length // 2)).expand(rows, length) if packed else None
    return MicroBatch(ids, positions, targets, ids.numel(), ids.numel(), [''], torch.arange(ids.numel()))


@contextmanager
def without_values() -> Iterator[LiveBytes]:
    """Return a context in which tensors have no values, and what counts them."""
    with FakeTensorMode(allow_non_fake_inputs=True), Counter(without_values=True) as live:
        yield live


class Counter(LiveBytes):
    """A meter of tensors, with values or without."""

    def reset(self) -> None:
        """Forget the peak."""
        self.peak = self.now


def measure(model: PreTrainedModel, job: Job, dtype: torch.dtype, device: torch.device | None) -> Slice:
    """Return what training the frame `model` takes, on `device`, or without values on none.

    Raises:
        ModelError: The adapter does not fit the model.
    """
    model = adapted(model, job)
    try:
        with quiet(), without_values() if device is None else nullcontext(CudaMeter(device)) as meter:
            return trained_slice(model, job, dtype, device or torch.device('cpu'), meter)
    finally:
        if device is not None:
            gc.collect()
            torch.cuda.empty_cache()


def trained_slice(model: PreTrainedModel, job: Job, dtype: torch.dtype, device: torch.device, meter: Meter) -> Slice:
    """Return what training a frame with its adapter takes on `device`, as `meter` counts; it gets random values."""
    fill(model, device)
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    still = {'frozen': Phase(0, meter.now - trained)}
    with redirect_stdout(StringIO()):
        task = fast_task(job, model, dtype, device, None, ALONE).train()
    still['ready'] = Phase(0, meter.now)
    real = device.type == 'cuda'
    parameters = list(task.trained_parameters().values())
    plain = build_optimizer(job, parameters, device) if real else counted_optimizer(job, parameters)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    batch = full_batch(vocabulary, job.schedule.batch_size, job.values.max_length, is_packed(job))
    if real:
        task.train_step([batch], plain)
    else:
        make_state(plain, parameters)
    before = meter.now
    marked = Marked(plain, meter)
    handle = model.get_input_embeddings().register_forward_hook(_announce(marked))
    meter.reset()
    task.train_step([batch, batch], marked)
    handle.remove()
    return Slice(before, {**still, **marked.phases}, _timed(task, plain, batch) if real else None)


def _announce(marked: Marked) -> Callable:
    def hook(_module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(marked.layers_done)

    return hook


def _timed(task: SupervisedFineTuning, optimizer: StepOptimizer, batch: MicroBatch) -> tuple[float, float]:
    """Return the seconds of a micro-batch, and of the rest of an optimizer step."""

    def once(count: int) -> float:
        torch.cuda.synchronize()
        begin = time.perf_counter()
        task.train_step([batch] * count, optimizer)
        torch.cuda.synchronize()
        return time.perf_counter() - begin

    once(MANY)  # compiles, tunes
    few, many = (median(once(count) for _ in range(TIMES)) for count in (FEW, MANY))
    each = (many - few) / (MANY - FEW)
    return each, max(few - FEW * each, 0.0)


__all__ = ['CudaMeter', 'Marked', 'Phase', 'Slice', 'full_batch', 'measure', 'without_values']
