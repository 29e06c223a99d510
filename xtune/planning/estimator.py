"""The memory estimator of `xtune list-cfg`, `xtune plan` and of the fit check of `xtune train`."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import torch

from ..config.specs import StepSpec
from ..engine.context_limit import check_length
from ..errors import ModelError
from ..methods.base_model import run_dtype
from ..models.loading.config_checks import check_attention
from .architecture import find_architecture
from .extrapolate import LayerCosts, PartialCheckpointing
from .model_sizes import LowerBound, ModelSizes
from .optimizer_state import is_paged
from .sharding import ShardedSizes
from .step_builder import StepBuilder
from .step_estimate import StepEstimate, estimate_step, layer_costs
from .units import CONTEXT
from .variants import Variant, in_bf16, nearest_variants, sequence_shard

CPU = torch.device('cpu')


class MemoryEstimator:
    """Estimates the memory of runs of one model.

    `lower_bound` counts weights, gradients and optimizer state. `estimate` adds the activations, from training steps of
    partial models on fake tensors; layers are counted as not compiled, so for compiled layers without activation
    checkpointing the figure is an upper bound. `profile` runs the same steps on a GPU. `sharded_sizes` are the input
    of the formula for FSDP2 and ZeRO-3.

    Args:
        step: The optimizer step of the run.
        log: Receives a line before each estimate, which may take minutes.

    Raises:
        ModelError: config.json cannot be read, or the model does not support the attention of the section `llm` or
            sequences of max_length.
    """

    def __init__(self, step: StepSpec, log: Callable[[str], None] = lambda line: None) -> None:
        architecture = find_architecture(step.model.base_model, step.model.load_llm)
        self.step, self.config, self.source, self._log = step, architecture.config, architecture.source, log
        check_attention(self.config, step.model.attn_implementation)
        check_length(self.config, step.model.max_length)
        self._layer_costs: dict[tuple, LayerCosts] = {}

    @cached_property
    def sizes(self) -> ModelSizes:
        """The sizes of the run's model."""
        # Quantization changes the bytes of a parameter, not the number of parameters.
        return ModelSizes.of(self._meta_model(self.step.with_model(quantization=None), torch.bfloat16))

    def lower_bound(self, dtype: torch.dtype) -> LowerBound:
        """Return the bytes that the run needs for certain when it computes in `dtype`, without paged state."""
        state = 0 if is_paged(self.step.optimizer) else self._builder(self.step, dtype).optimizer_bytes_per_parameter()
        return LowerBound.of(self._meta_model(self.step, dtype), state)

    def sharded_sizes(self) -> ShardedSizes:
        """Return the sizes that decide the memory of a device when the run is sharded."""
        step = sequence_shard(self.step)
        state = self._builder(step, torch.bfloat16).optimizer_bytes_per_parameter()
        tokens = step.schedule.batch_size * step.model.max_length
        return ShardedSizes.of(self._meta_model(step, torch.bfloat16), step.model.lora is None, state, tokens)

    def minimum(self) -> StepEstimate:
        """Return the minimum memory of the run: with 'auto', activation checkpointing in every layer."""
        return self.estimate(self.step)

    def estimate(self, step: StepSpec, limit: float = 0) -> StepEstimate:
        """Return the memory of a run on any device, from steps on fake tensors.

        Args:
            step: The step.
            limit: Bytes; with 'auto' the fewest layers that fit into them are checkpointed.
        """
        step = sequence_shard(in_bf16(step))
        builder = self._builder(step, run_dtype(step.model, CPU))
        return self._with_checkpointing(step, limit, lambda step: self._counted_costs(replace(builder, step=step)))

    def profile(self, step: StepSpec, device: torch.device, limit: float) -> StepEstimate | None:
        """Return the memory and speed of a run on the GPU `device`, from steps on it; None: they do not fit."""
        step = sequence_shard(step)
        builder = replace(self._builder(step, run_dtype(step.model, device)), device=device)
        self._log(f'measuring steps of {_micro_batch(step)} on this GPU')
        try:
            return self._with_checkpointing(step, limit, lambda step: layer_costs(replace(builder, step=step)))
        except torch.OutOfMemoryError:
            return None
        finally:
            torch.cuda.empty_cache()

    def first_fit(self, limit: float) -> tuple[Variant, StepEstimate] | None:
        """Return the nearest run that needs at most `limit` bytes, with the context of CUDA; None: there is none."""
        for variant in nearest_variants(self.step):
            estimate = self.estimate(variant.step, limit)
            if estimate.peak + CONTEXT <= limit:
                return variant, estimate
        return None

    def _builder(self, step: StepSpec, dtype: torch.dtype) -> StepBuilder:
        return StepBuilder(step, self.config, dtype)

    def _meta_model(self, step: StepSpec, dtype: torch.dtype) -> torch.nn.Module:
        builder = self._builder(step.with_model(activation_checkpointing='none'), dtype)
        return builder.with_adapter(builder.base_model())

    def _with_checkpointing(
        self, step: StepSpec, limit: float, costs_of: Callable[[StepSpec], LayerCosts]
    ) -> StepEstimate:
        """Return the memory of `step`; `costs_of` returns the layer costs with its option `activation_checkpointing`.

        Raises:
            ModelError: The option exceeds the number of layers.
        """
        wanted, schedule = step.model.activation_checkpointing, step.schedule
        on_one_sequence_shard = step.strategy.sequence_parallel_size == 1  # else its attention is over full sequences
        tokens = schedule.batch_size * step.model.max_length if on_one_sequence_shard else None

        def estimated(costs: LayerCosts | PartialCheckpointing, count: int) -> StepEstimate:
            return estimate_step(costs, count, schedule.gradient_accumulation_steps, tokens)

        if isinstance(wanted, int) and wanted > self.sizes.layers:
            most = self.sizes.layers
            raise ModelError(
                f"activation_checkpointing={wanted}, but the model has {most} layers: give at most {most}, or 'all'"
            )
        if wanted in ('none', 0):
            return estimated(costs_of(step.with_model(activation_checkpointing='none')), 0)
        checkpointed = costs_of(step if wanted == 'offload' else step.with_model(activation_checkpointing='all'))
        every_layer = estimated(checkpointed, len(checkpointed.types))
        if wanted in ('all', 'offload'):
            return every_layer
        if wanted == 'auto':
            if every_layer.peak + CONTEXT > limit or not step.is_replicated(2) or not on_one_sequence_shard:
                return every_layer
        costs = PartialCheckpointing(checkpointed, costs_of(step.with_model(activation_checkpointing='none')))
        if wanted != 'auto':
            return estimated(costs, wanted)
        estimates = (estimated(costs, count) for count in range(len(checkpointed.types)))
        return next((found for found in estimates if found.peak + CONTEXT <= limit), every_layer)

    def _counted_costs(self, builder: StepBuilder) -> LayerCosts:
        """Return the layer costs of a run on fake tensors; they are computed once."""
        step, model, schedule = builder.step, builder.step.model, builder.step.schedule
        key = (model.lora is None, str(model.quantization), model.activation_checkpointing, model.max_length)
        key += (schedule.batch_size, schedule.gradient_accumulation_steps > 1)
        if key not in self._layer_costs:
            if model.activation_checkpointing == 'offload':
                checkpointed = replace(builder, step=step.with_model(activation_checkpointing='all'))
                self._layer_costs[key] = self._counted_costs(checkpointed).with_offloaded_inputs()
            else:
                option = f'activation_checkpointing={model.activation_checkpointing}'
                self._log(f'counting steps of {_micro_batch(step)}, {option}')
                self._layer_costs[key] = layer_costs(builder)
        return self._layer_costs[key]


def _micro_batch(step: StepSpec) -> str:
    return f'{step.schedule.batch_size} x {step.model.max_length:,} tokens'
