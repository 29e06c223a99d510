"""Layer costs from partial models, and the memory and speed of a run from layer costs."""

import gc
from dataclasses import dataclass

import torch

from ..errors import ModelError
from ..models.loading.config_json import reason
from .extrapolate import LayerCosts, PartialCheckpointing, StepMemory
from .partial_model import keep_layers, types_of_layers
from .partial_run import PartialRun, run_partial_model
from .step_builder import StepBuilder

# Layers in addition to the base that make the time of a layer stand out from noise.
TIMED = 4
# Bytes of the workspace of cuBLAS, which comes from the allocator, for runs without an allocator.
CUBLAS = 32 * 2**20


@dataclass(frozen=True)
class StepEstimate:
    """The memory of one device, and its speed.

    Args:
        resident: Bytes between steps: frozen weights, adapter, master weights, optimizer state.
        frozen: Bytes of weights that are not trained.
        optimizer: Bytes of optimizer state.
        gradients: Bytes of gradients.
        activations: Bytes of activations between forward and backward pass.
        peak: Bytes of the peak.
        phase: The phase with the peak.
        seconds: Seconds of an optimizer step; None: not timed.
        speed: Tokens per second; None: not timed.
        checkpointed: Layers with activation checkpointing.
    """

    resident: int
    frozen: int
    optimizer: int
    gradients: int
    activations: int
    peak: int
    phase: str
    seconds: float | None
    speed: float | None
    checkpointed: int = 0


def layer_costs(builder: StepBuilder) -> LayerCosts:
    """Return the costs of the layers of a model, from runs of partial models on the builder's device or fake tensors.

    Raises:
        ModelError: The model or its adapter cannot be built.
    """
    on_gpu = builder.device is not None and builder.device.type == 'cuda'
    types = types_of_layers(builder.base_model())
    first = {layer_type: types.index(layer_type) for layer_type in reversed(types)}
    base, workspace = sorted(first.values()), CUBLAS
    if on_gpu:
        # Libraries allocate their workspaces in the first run and keep them, so later runs do not count them.
        before = torch.cuda.memory_allocated(builder.device)
        _run(builder, base)
        workspace = torch.cuda.memory_allocated(builder.device) - before
    smallest, per_layer = _run(builder, base), {}
    for layer_type in first:
        extra = [n for n, other in enumerate(types) if other == layer_type and n not in base]
        extra = extra[: 1 if builder.device is None else TIMED]
        if not extra:
            continue
        larger = _run(builder, sorted(base + extra))
        difference = StepMemory.of(larger).plus(StepMemory.of(smallest), -1)
        per_layer[layer_type] = difference.plus(difference, 1 / len(extra) - 1)
    return LayerCosts(smallest, per_layer, types, workspace)


def _run(builder: StepBuilder, layers: list[int]) -> PartialRun:
    model = builder.base_model()
    keep_layers(model, layers)
    try:
        return run_partial_model(model, builder)
    except ValueError as error:  # the model refuses the requested attention
        raise ModelError(
            f'a step of {type(model).__name__} cannot be run: {reason(error)}; if that is about attention, set '
            "llm.attn_implementation='eager'"
        ) from error
    finally:
        if builder.device is not None:  # hooks and the model refer to each other
            del model
            gc.collect()
            torch.cuda.empty_cache()


def estimate_step(
    costs: LayerCosts | PartialCheckpointing,
    num_checkpointed: int,
    micro_batches: int,
    tokens: int | None,
) -> StepEstimate:
    """Return the memory and speed of the full model.

    Args:
        costs: The costs of its layers.
        num_checkpointed: Number of layers with activation checkpointing, the first ones.
        micro_batches: Micro-batches per optimizer step.
        tokens: Tokens of a micro-batch; None: the speed is not to be computed.
    """
    mixed = isinstance(costs, PartialCheckpointing)
    memory = costs.full_model(num_checkpointed) if mixed else costs.full_model()
    relevant = (costs.checkpointed if num_checkpointed else costs.kept) if mixed else costs
    last = '1' if micro_batches > 1 else '0'
    peaks = {name: peak for name, peak in memory.peak.items() if name[-1] not in '01' or name[-1] == last}
    if micro_batches == 1:
        peaks['backward 0 (first layer)'] = relevant.first_layer_peak(memory)
    phase = max(peaks, key=peaks.get)
    seconds = speed = None
    if memory.seconds is not None and tokens is not None:
        per_micro_batch, rest = memory.seconds
        seconds = micro_batches * per_micro_batch + rest
        speed = micro_batches * tokens / seconds
    return StepEstimate(
        resident=round(memory.between_steps),
        frozen=round(memory.allocated['frozen']),
        optimizer=round(memory.between_steps - memory.allocated['ready']),
        gradients=round(max(memory.allocated['step'] - memory.between_steps, 0)),
        activations=round(memory.allocated['forward 0'] - memory.between_steps),
        peak=round(peaks[phase]) + relevant.workspace,
        phase=phase.split()[0],
        seconds=seconds,
        speed=speed,
        checkpointed=num_checkpointed,
    )
