"""Slices of a model, and what the run of the whole of it takes."""

import gc
from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig

from ..config.wire import Job
from ..errors import ModelError
from ..methods.meta_model import build_meta_model
from ..models.loading.config_json import reason
from .compiled_estimate import CountedGraphs
from .extrapolate import Choice, Layers, Levels
from .meta_model import keep_layers, kinds, planned_meta_model
from .partial_model import Slice, measure

# Layers that a clock needs to tell their time from the noise of the rest.
TIMED = 4
# Bytes that cuBLAS takes from the allocator for its work, where no allocator tells.
CUBLAS = 32 * 2**20


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
    recomputed: int = 0  # layers


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
    found = kinds(planned_meta_model(job, config, dtype))
    first = {kind: found.index(kind) for kind in reversed(found)}
    base = sorted(first.values())
    workspace = CUBLAS
    if device is not None and device.type == 'cuda':
        # Libraries take their workspaces in the first run and keep them, so slices that follow have none in them.
        before = torch.cuda.memory_allocated(device)
        _slice(job, config, dtype, device, graphs, base)
        workspace = torch.cuda.memory_allocated(device) - before
    smallest = _slice(job, config, dtype, device, graphs, base)
    more = {}
    for kind in first:
        extra = [n for n, other in enumerate(found) if other == kind and n not in base]
        extra = extra[: 1 if device is None else TIMED]
        if not extra:
            continue
        larger = _slice(job, config, dtype, device, graphs, sorted(base + extra))
        difference = Levels.of(larger).plus(Levels.of(smallest), -1)
        more[kind] = difference.plus(difference, 1 / len(extra) - 1)
    return Layers(smallest, more, found, workspace)


def _slice(
    job: Job,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    device: torch.device | None,
    graphs: CountedGraphs,
    chosen: list[int],
) -> Slice:
    if device is None:
        model = planned_meta_model(job, config, dtype)
    else:
        model = build_meta_model(job.model, config, dtype)
    keep_layers(model, chosen)
    try:
        return measure(model, job, dtype, device, graphs)
    except ValueError as error:  # of the attention that the model is asked to use
        raise ModelError(
            f'a step of {type(model).__name__} cannot be run: {reason(error)}; if that is about attention, set '
            "llm.attn_implementation='eager'"
        ) from error
    finally:
        if device is not None:  # hooks and what they change refer to each other
            del model
            gc.collect()
            torch.cuda.empty_cache()


def predict(job: Job, found: Layers | Choice, recomputed: int) -> Prediction:
    """Return what the run of `job` takes.

    Args:
        job: The run.
        found: Slices of its model.
        recomputed: How many layers, the first ones, recompute.
    """
    mixed = isinstance(found, Choice)
    whole = found.whole(recomputed) if mixed else found.whole()
    ends = (found.recomputing if recomputed else found.keeping) if mixed else found
    several = job.schedule.accumulate > 1
    last = '1' if several else '0'
    parts = {name: peak for name, peak in whole.peak.items() if name[-1] not in '01' or name[-1] == last}
    if not several:
        parts['backward 0 '] = ends.lowest_layer(whole)
    where = max(parts, key=parts.get)
    seconds = speed = None
    if whole.seconds is not None and job.strategy.sequence_parallel_size == 1:  # its attention is over whole rows
        each, rest = whole.seconds
        seconds = job.schedule.accumulate * each + rest
        speed = job.schedule.accumulate * job.schedule.batch_size * job.values.max_length / seconds
    return Prediction(
        held=round(whole.before),
        frozen=round(whole.after['frozen']),
        optimizer=round(whole.before - whole.after['ready']),
        gradients=round(max(whole.after['step'] - whole.before, 0)),
        kept=round(whole.after['forward 0'] - whole.before),
        peak=round(parts[where]) + ends.workspace,
        where=where.split()[0],
        seconds=seconds,
        speed=speed,
        recomputed=recomputed,
    )
