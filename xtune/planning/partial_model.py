"""Train some layers of a model for a few steps and note what memory each part of a step takes.

The model is built and trained by the code of `xtune train`, from random weights; micro-batches are full, and every
token in them is trained. On a GPU the allocator counts and a clock runs. Elsewhere the step runs on tensors without
values.
"""

import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from statistics import median
from typing import Any

import torch
from transformers import PreTrainedModel

from ..config.wire import Job
from ..data.batches import MicroBatch
from ..engine.optimizations import fast_task
from ..engine.optimizer import StepOptimizer, build_optimizer
from ..engine.packing_check import is_packed
from ..engine.prepare_model import add_meta_adapter
from ..ops.compilation import replaced
from ..optimizations.cuda_graphs.host_bound import STEPS
from ..parallel.env import ALONE
from ..parallel.ulysses import base_of
from ..tasks.lm_head import before_output_layer
from ..tasks.sft import SupervisedFineTuning
from ..utils.quiet import quiet
from .compiled_estimate import CountedGraphs
from .optimizer_state import counted_optimizer, make_state, paged_bytes
from .phase_meters import Counter, CudaMeter, Marked, Meter, Phase, without_values
from .random_init import fill

# Micro-batches whose times are compared, and how often.
FEW, MANY, TIMES = 1, 3, 3
# Steps after which they take the same time: layers that the GPU waits for are graphs then.
SETTLE = STEPS + 2


@dataclass(frozen=True)
class Slice:
    """What a model of some layers took.

    `before` are the bytes between steps. `phases` are those of a step of two micro-batches: forward, loss (its backward
    pass, if that ends where it can be seen), backward (of the layers), ends (backward of the embedding) with the number
    of the micro-batch; clip, step. Before them are frozen (the weights that are not trained) and ready (the model, and
    no state of the optimizer). `seconds` are those of a micro-batch and of the rest of a step; None: no clock ran.
    """

    before: int
    phases: dict[str, Phase]
    seconds: tuple[float, float] | None = None


def full_batch(vocabulary: int, rows: int, length: int, packed: bool = False) -> MicroBatch:
    """Return `rows` of `length` random tokens, all of them trained; if `packed`, two samples a row."""
    ids = torch.randint(vocabulary, (rows, length))
    batch = MicroBatch.of_rows(ids, ids.roll(-1, 1))
    if not packed:
        return batch
    half = -(-length // 2)
    starts = [row * length + at for row in range(rows) for at in (0, half)]
    positions = torch.arange(length).remainder(half).expand(rows, length)
    borders = torch.tensor([*starts, rows * length], dtype=torch.int32)
    return replace(batch, position_ids=positions, borders=borders, longest=half)


def measure(
    model: PreTrainedModel, job: Job, dtype: torch.dtype, device: torch.device | None, graphs: CountedGraphs
) -> Slice:
    """Return what training the frame `model` takes, on `device`, or without values on none.

    `graphs` are of layers of the same model, measured before.

    Raises:
        ModelError: The adapter does not fit the model.
    """
    model = add_meta_adapter(model, job.model)
    if device is not None:
        with quiet(), CudaMeter(device) if device.type == 'cuda' else Counter() as meter:
            return trained_slice(model, job, dtype, device, meter, timed=True)
    with quiet(), without_values() as graphs.meter, replaced(graphs.stand_in):
        return trained_slice(model, job, dtype, torch.device('cpu'), graphs.meter)


def trained_slice(
    model: PreTrainedModel, job: Job, dtype: torch.dtype, device: torch.device, meter: Meter, timed: bool = False
) -> Slice:
    """Return what training a frame with its adapter takes on `device`, as `meter` counts; it gets random values.

    If it is not `timed`, the optimizer's values do not matter.
    """
    fill(model, device)
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    still = {'frozen': Phase(0, meter.now - trained)}
    with redirect_stdout(StringIO()):
        task = fast_task(job, model, dtype, device, None, ALONE).train()
    still['ready'] = Phase(0, meter.now)
    parameters = list(task.trained_parameters().values())
    plain = build_optimizer(job, parameters, device) if timed else counted_optimizer(job, parameters)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    batch = full_batch(vocabulary, job.schedule.batch_size, job.values.max_length, is_packed(job))
    if timed:
        task.train_step([batch], plain)
    else:
        make_state(plain, parameters)
    before = meter.now
    marked, base = Marked(plain, meter), base_of(model)
    handles = [
        model.get_input_embeddings().register_forward_hook(_announce(marked.layers_done)),
        (before_output_layer(base) or base.base_model).register_forward_hook(_announce(marked.loss_done)),
    ]
    meter.reset()
    task.train_step([batch, batch], marked)
    for handle in handles:
        handle.remove()
    paged = paged_bytes(job, parameters) if timed else 0
    phases = {name: Phase(phase.peak + paged, phase.after + paged) for name, phase in marked.phases.items()}
    return Slice(before + paged, {**still, **phases}, _timed(task, plain, batch) if timed else None)


def _announce(reached: Callable[[torch.Tensor], None]) -> Callable:
    """Return a hook of a module, after which `reached` is called when the backward pass comes to what that gives."""

    def hook(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
        output = getattr(output, 'last_hidden_state', output)
        if isinstance(output, torch.Tensor) and output.requires_grad:
            output.register_hook(reached)

    return hook


def _timed(task: SupervisedFineTuning, optimizer: StepOptimizer, batch: MicroBatch) -> tuple[float, float]:
    """Return the seconds of a micro-batch, and of the rest of an optimizer step."""

    def once(count: int) -> float:
        _wait(task.device)
        begin = time.perf_counter()
        task.train_step([batch] * count, optimizer)
        _wait(task.device)
        return time.perf_counter() - begin

    if task.graphs is not None:
        task.graphs.said = True  # no run resumes from here
    for _ in range(SETTLE):  # compiles, tunes, records
        once(FEW)
    few, many = (median(once(count) for _ in range(TIMES)) for count in (FEW, MANY))
    each = (many - few) / (MANY - FEW)
    return each, max(few - FEW * each, 0.0)


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
