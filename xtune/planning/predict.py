"""From slices of a model to the whole of it: each part of a step has a level that grows by layer, and a peak above it.

What is alive after each part of a step grows by the same bytes with each layer of a kind: the difference of two slices.
What a part takes above that level for a while is the work of one layer or of the ends, which no other layer adds to,
except in the optimizer's update, which is again a difference.
"""

import gc
from collections import Counter
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedConfig

from ..config.wire import Job
from .compiled import CountedGraphs
from .frame import Kind, frame, keep_layers, kinds
from .slices import Slice, measure

# Layers that a clock needs to tell their time from the noise of the rest.
TIMED = 4
# Bytes that cuBLAS takes from the allocator for its work, where no allocator tells.
CUBLAS = 32 * 2**20


@dataclass(frozen=True)
class Levels:
    """Bytes of a run of all layers, or what one more layer adds: between steps, after each part, and its peak."""

    before: float
    after: dict[str, float]
    peak: dict[str, float]
    seconds: tuple[float, float] | None

    @classmethod
    def of(cls, found: Slice) -> 'Levels':
        """Return the levels of a slice."""
        parts = found.phases.items()
        return cls(found.before, {k: v.after for k, v in parts}, {k: v.peak for k, v in parts}, found.seconds)

    def plus(self, other: 'Levels', times: float) -> 'Levels':
        """Return these and `times` others."""
        seconds = None
        if self.seconds is not None:
            seconds = tuple(a + times * b for a, b in zip(self.seconds, other.seconds, strict=True))
        return Levels(
            self.before + times * other.before,
            {name: value + times * other.after[name] for name, value in self.after.items()},
            {name: value + times * other.peak[name] for name, value in self.peak.items()},
            seconds,
        )


@dataclass(frozen=True)
class Layers:
    """Slices of a model: the smallest that has each kind of layer, and what one more of each kind adds."""

    base: Slice
    more: dict[Kind, Levels]
    counts: dict[Kind, int]  # how many layers the model has beyond the base
    workspace: int  # bytes that libraries take once

    def whole(self) -> Levels:
        """Return the levels of the whole model."""
        found = Levels.of(self.base)
        for kind, count in self.counts.items():
            found = found.plus(self.more[kind], count)
        # Above the level after it, the peak of a part does not grow: only that of the update does.
        peak = {}
        for name, phase in self.base.phases.items():
            level = self._level(name)
            peak[name] = found.peak[name] if level is None else phase.peak - self.base.phases[level].after
            peak[name] += 0 if level is None else found.after[level]
        return replace(found, peak=peak)

    def _level(self, name: str) -> str | None:
        """Return the part after which what is alive is what the peak of part `name` stands on."""
        part, _, number = name.partition(' ')
        if part == 'backward':
            return f'forward {number}'
        if part == 'ends':
            return f'backward {number}'
        return name if part == 'forward' else None

    def lowest_layer(self, whole: Levels) -> float:
        """Return the peak of the first layer's backward pass in the first micro-batch, as gradients have come to be."""
        name = 'ends 0' if 'ends 0' in whole.after else 'backward 0'
        return whole.after[name] + self.base.phases['backward 1'].peak - self.base.phases[name].after


@dataclass(frozen=True)
class Prediction:
    """Bytes, seconds and tokens a second of one device. `seconds` of a step and `speed` are None without a GPU."""

    held: int  # between steps: frozen, adapter, masters, optimizer
    frozen: int  # weights that are not trained
    optimizer: int  # its state
    gradients: int
    kept: int  # activations between forward and backward
    peak: int
    where: str
    seconds: float | None
    speed: float | None


def layers(
    job: Job,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    device: torch.device | None,
    graphs: CountedGraphs | None = None,
) -> Layers:
    """Measure slices of the model of `job`, on `device`, or without values on none.

    Raises:
        ModelError: The model or its adapter cannot be built.
    """
    graphs = graphs or CountedGraphs()
    found = kinds(frame(job, config, dtype))
    first = {kind: found.index(kind) for kind in reversed(found)}
    base = sorted(first.values())
    counts = {kind: number - 1 for kind, number in Counter(found).items() if number > 1}
    workspace = CUBLAS
    if device is not None:
        # Libraries take their workspaces in the first run and keep them, so slices that follow have none in them.
        before = torch.cuda.memory_allocated(device)
        _slice(job, config, dtype, device, graphs, base)
        workspace = torch.cuda.memory_allocated(device) - before
    smallest = _slice(job, config, dtype, device, graphs, base)
    more = {}
    for kind, count in counts.items():
        extra = [n for n, other in enumerate(found) if other == kind and n not in base]
        extra = extra[: 1 if device is None else min(TIMED, count)]
        larger = _slice(job, config, dtype, device, graphs, sorted(base + extra))
        difference = Levels.of(larger).plus(Levels.of(smallest), -1)
        more[kind] = difference.plus(difference, 1 / len(extra) - 1)
    return Layers(smallest, more, counts, workspace)


def _slice(
    job: Job,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    device: torch.device | None,
    graphs: CountedGraphs,
    chosen: list[int],
) -> Slice:
    model = frame(job, config, dtype, counted=device is None)
    keep_layers(model, chosen)
    try:
        return measure(model, job, dtype, device, graphs)
    finally:
        if device is not None:  # hooks and what they change refer to each other
            del model
            gc.collect()
            torch.cuda.empty_cache()


def predict(job: Job, found: Layers) -> Prediction:
    """Return what the run of `job` takes.

    Args:
        job: The run.
        found: Slices of its model.
    """
    whole, several = found.whole(), job.schedule.accumulate > 1
    last = '1' if several else '0'
    parts = {name: peak for name, peak in whole.peak.items() if name[-1] not in '01' or name[-1] == last}
    if not several:
        parts['backward 0 '] = found.lowest_layer(whole)
    where = max(parts, key=parts.get)
    seconds = speed = None
    if whole.seconds is not None:
        each, rest = whole.seconds
        seconds = job.schedule.accumulate * each + rest
        speed = job.schedule.accumulate * job.schedule.batch_size * job.values.max_length / seconds
    return Prediction(
        held=round(whole.before),
        frozen=round(whole.after['frozen']),
        optimizer=round(whole.before - whole.after['ready']),
        gradients=round(max(whole.after['step'] - whole.before, 0)),
        kept=round(whole.after['forward 0'] - whole.before),
        peak=round(parts[where]) + found.workspace,
        where=where.split()[0],
        seconds=seconds,
        speed=speed,
    )
