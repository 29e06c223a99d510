"""Train a model with some of its layers for a few steps, and record the memory of each phase of a step.

The model is built and trained by the code of `xtune train`, from random weights. Micro-batches are full, and every
token in them is trained. On a GPU the allocator counts and a clock runs; elsewhere the steps run on fake tensors.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from transformers import PreTrainedModel

from ..data.batches import MicroBatch
from ..engine.optimizations import Optimized
from ..engine.strategies import Replicated
from ..engine.trainer import Trainer
from ..ops.chunked_cross_entropy import chunk_loss_as
from ..optimizations.cuda_graphs.launch_bound import STEPS
from ..tasks.lm_head import before_output_layer
from ..utils.language_model import base_of
from ..utils.quiet import quiet
from .optimizer_state import initialize_state
from .phase_meters import CudaMeter, Meter, Phase, PhaseStrategy, TensorMeter, fake_tensors
from .random_init import materialize
from .step_builder import StepBuilder

# Micro-batches per step whose times are compared, and repetitions.
FEW, MANY, REPETITIONS = 1, 3, 3
# Steps until the step time is steady: by then launch-bound layers are CUDA graphs.
WARM_UP = STEPS + 2


@dataclass(frozen=True)
class PartialRun:
    """Memory of a run of a model with some of its layers.

    `between_steps` are the bytes allocated between steps. `phases` are those of a step of two micro-batches, with the
    number of the micro-batch: `forward N`, `loss N` (backward pass of the loss, if its end can be seen), `backward N`
    (of the layers), `embedding N` (its backward pass); then `clip` and `step`. Before them are `frozen` (weights that
    are not trained) and `ready` (the model without optimizer state). `seconds` are those of one micro-batch, and of the
    rest of an optimizer step; None: not timed.
    """

    between_steps: int
    phases: dict[str, Phase]
    seconds: tuple[float, float] | None = None


def run_partial_model(model: PreTrainedModel, builder: StepBuilder) -> PartialRun:
    """Return the memory of training a meta model: on the builder's device, or on fake tensors without one.

    Raises:
        ModelError: The adapter does not fit the model.
    """
    model = builder.with_adapter(model)
    device = builder.device
    if device is None:
        with quiet(), fake_tensors() as meter, chunk_loss_as(_compiled_chunk_loss):
            return profile_steps(model, builder, meter)
    with quiet(), CudaMeter(device) if device.type == 'cuda' else TensorMeter() as meter:
        return profile_steps(model, builder, meter, timed=True)


def _compiled_chunk_loss(logits: torch.Tensor, _targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Allocate what the compiled loss of a chunk allocates on a GPU: the loss, and the gradient of the logits."""
    return logits.new_zeros((), dtype=torch.float32), torch.empty_like(logits)


def profile_steps(model: torch.nn.Module, builder: StepBuilder, meter: Meter, timed: bool = False) -> PartialRun:
    """Materialize a meta model with its adapter, train it, and return the memory that `meter` reports."""
    materialize(model, builder.device or torch.device('cpu'))
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    setup = {'frozen': Phase(0, meter.allocated - trained)}
    optimized = builder.optimize(model)
    task = optimized.task
    setup['ready'] = Phase(0, meter.allocated)
    parameters = list(task.trained_parameters().values())
    optimizer = builder.optimizer(parameters)
    batch = builder.micro_batch(model.get_input_embeddings().weight.shape[0])
    trainer = _trainer(builder, optimized, optimizer, Replicated())
    if timed:
        trainer.train_step([batch])
    else:
        initialize_state(optimizer, parameters)
    between_steps = meter.allocated
    strategy = PhaseStrategy(meter)
    phases = _phases_of_step(model, _trainer(builder, optimized, optimizer, strategy), strategy, batch)
    paged = builder.paged_bytes(parameters)
    phases = {name: Phase(phase.peak + paged, phase.allocated + paged) for name, phase in phases.items()}
    seconds = _time_steps(trainer, batch) if timed else None
    return PartialRun(between_steps + paged, {**setup, **phases}, seconds)


def _trainer(
    builder: StepBuilder, optimized: Optimized, optimizer: torch.optim.Optimizer, strategy: Replicated
) -> Trainer:
    strategy.attach(optimized.task, optimizer)
    return Trainer(optimized.task, strategy, builder.step.schedule.max_grad_norm, optimized.wrappers)


def _phases_of_step(
    model: torch.nn.Module, trainer: Trainer, strategy: PhaseStrategy, batch: MicroBatch
) -> dict[str, Phase]:
    """Return the phases of an optimizer step of two micro-batches."""
    base = base_of(model)
    handles = [
        model.get_input_embeddings().register_forward_hook(_call_in_backward(strategy.layers_done)),
        (before_output_layer(base) or base.base_model).register_forward_hook(_call_in_backward(strategy.loss_done)),
    ]
    strategy.meter.reset_peak()
    trainer.train_step([batch, batch])
    for handle in handles:
        handle.remove()
    return strategy.phases


def _call_in_backward(callback: Callable[[torch.Tensor], None]) -> Callable:
    """Return a forward hook that calls `callback` when the backward pass reaches the output of the module."""

    def hook(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
        output = getattr(output, 'last_hidden_state', output)
        if isinstance(output, torch.Tensor) and output.requires_grad:
            output.register_hook(callback)

    return hook


def _time_steps(trainer: Trainer, batch: MicroBatch) -> tuple[float, float]:
    """Return the seconds of a micro-batch, and of the rest of an optimizer step."""

    task = trainer.task

    def timed_step(micro_batches: int) -> float:
        _synchronize(task.device)
        start = time.perf_counter()
        trainer.train_step([batch] * micro_batches)
        _synchronize(task.device)
        return time.perf_counter() - start

    if task.graphs is not None:
        task.graphs.announced = True  # do not print when layers become CUDA graphs
    for _ in range(WARM_UP):  # compile, tune, capture
        timed_step(FEW)
    few, many = (median(timed_step(count) for _ in range(REPETITIONS)) for count in (FEW, MANY))
    per_micro_batch = (many - few) / (MANY - FEW)
    return per_micro_batch, max(few - FEW * per_micro_batch, 0.0)


def _synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
