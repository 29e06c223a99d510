"""The memory estimator of `xtune list-cfg`, `xtune plan` and of the fit check of `xtune train`."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import torch

from ..config.wire import Job
from ..engine.auto_checkpointing import has_full_model
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
from .variants import Variant, in_bf16, nearest_variants, sequence_shard, with_values

CPU = torch.device('cpu')


class MemoryEstimator:
    """Estimates the memory of runs of one model.

    `lower_bound` counts weights, gradients and optimizer state. `estimate` adds the activations, from training steps of
    partial models on fake tensors; layers are counted as not compiled, so for compiled layers without activation
    checkpointing the figure is an upper bound. `profile` runs the same steps on a GPU. `sharded_sizes` are the input
    of the formula for FSDP2 and ZeRO-3.

    Args:
        job: The run of the config.
        log: Receives a line before each estimate, which may take minutes.

    Raises:
        ModelError: config.json cannot be read, or the model does not support the attention of the section `llm` or
            sequences of max_length.
    """

    def __init__(self, job: Job, log: Callable[[str], None] = lambda line: None) -> None:
        architecture = find_architecture(job.values.base_model, job.load_llm)
        self.job, self.config, self.source, self._log = job, architecture.config, architecture.source, log
        check_attention(self.config, job.load_llm.keywords.get('attn_implementation'))
        check_length(self.config, job.values.max_length)
        self._layer_costs: dict[tuple, LayerCosts] = {}

    @cached_property
    def sizes(self) -> ModelSizes:
        """The sizes of the run's model."""
        # Quantization changes the bytes of a parameter, not the number of parameters.
        return ModelSizes.of(self._meta_model(replace(self.job, quantization=None), torch.bfloat16))

    def lower_bound(self, dtype: torch.dtype) -> LowerBound:
        """Return the bytes that the run needs for certain when it computes in `dtype`, without paged state."""
        state = 0 if is_paged(self.job.optimizer) else self._builder(self.job, dtype).optimizer_bytes_per_parameter()
        return LowerBound.of(self._meta_model(self.job, dtype), state)

    def sharded_sizes(self) -> ShardedSizes:
        """Return the sizes that decide the memory of a device when the run is sharded."""
        job = sequence_shard(self.job)
        state = self._builder(job, torch.bfloat16).optimizer_bytes_per_parameter()
        tokens = job.schedule.batch_size * job.values.max_length
        return ShardedSizes.of(self._meta_model(job, torch.bfloat16), job.lora is None, state, tokens)

    def minimum(self) -> StepEstimate:
        """Return the minimum memory of the run: with 'auto', activation checkpointing in every layer."""
        return self.estimate(self.job)

    def estimate(self, job: Job, limit: float = 0) -> StepEstimate:
        """Return the memory of a run on any device, from steps on fake tensors.

        Args:
            job: The run.
            limit: Bytes; with 'auto' the fewest layers that fit into them are checkpointed.
        """
        job = sequence_shard(in_bf16(job))
        builder = self._builder(job, run_dtype(job.model, CPU))
        return self._with_checkpointing(job, limit, lambda job: self._counted_costs(replace(builder, job=job)))

    def profile(self, job: Job, device: torch.device, limit: float) -> StepEstimate | None:
        """Return the memory and speed of a run on the GPU `device`, from steps on it; None: they do not fit."""
        job = sequence_shard(job)
        builder = replace(self._builder(job, run_dtype(job.model, device)), device=device)
        self._log(f'measuring steps of {_micro_batch(job)} on this GPU')
        try:
            return self._with_checkpointing(job, limit, lambda job: layer_costs(replace(builder, job=job)))
        except torch.OutOfMemoryError:
            return None
        finally:
            torch.cuda.empty_cache()

    def first_fit(self, limit: float) -> tuple[Variant, StepEstimate] | None:
        """Return the nearest run that needs at most `limit` bytes, with the context of CUDA; None: there is none."""
        for variant in nearest_variants(self.job):
            estimate = self.estimate(variant.job, limit)
            if estimate.peak + CONTEXT <= limit:
                return variant, estimate
        return None

    def _builder(self, job: Job, dtype: torch.dtype) -> StepBuilder:
        return StepBuilder(job, self.config, dtype)

    def _meta_model(self, job: Job, dtype: torch.dtype) -> torch.nn.Module:
        builder = self._builder(with_values(job, activation_checkpointing='none'), dtype)
        return builder.with_adapter(builder.base_model())

    def _with_checkpointing(self, job: Job, limit: float, costs_of: Callable[[Job], LayerCosts]) -> StepEstimate:
        """Return the memory of `job`; `costs_of` returns the layer costs with its option `checkpointing`.

        Raises:
            ModelError: The option exceeds the number of layers.
        """
        wanted, schedule = job.values.activation_checkpointing, job.schedule
        on_one_sequence_shard = job.strategy.sequence_parallel_size == 1  # else its attention is over full sequences
        tokens = schedule.batch_size * job.values.max_length if on_one_sequence_shard else None

        def estimated(costs: LayerCosts | PartialCheckpointing, count: int) -> StepEstimate:
            return estimate_step(costs, count, schedule.gradient_accumulation_steps, tokens)

        if isinstance(wanted, int) and wanted > self.sizes.layers:
            most = self.sizes.layers
            raise ModelError(
                f"activation_checkpointing={wanted}, but the model has {most} layers: give at most {most}, or 'all'"
            )
        if wanted in ('none', 0):
            return estimated(costs_of(with_values(job, activation_checkpointing='none')), 0)
        checkpointed = costs_of(job if wanted == 'offload' else with_values(job, activation_checkpointing='all'))
        every_layer = estimated(checkpointed, len(checkpointed.types))
        if wanted in ('all', 'offload'):
            return every_layer
        if wanted == 'auto':
            if every_layer.peak + CONTEXT > limit or not has_full_model(job, 2) or not on_one_sequence_shard:
                return every_layer
        costs = PartialCheckpointing(checkpointed, costs_of(with_values(job, activation_checkpointing='none')))
        if wanted != 'auto':
            return estimated(costs, wanted)
        estimates = (estimated(costs, count) for count in range(len(checkpointed.types)))
        return next((found for found in estimates if found.peak + CONTEXT <= limit), every_layer)

    def _counted_costs(self, builder: StepBuilder) -> LayerCosts:
        """Return the layer costs of a run on fake tensors; they are computed once."""
        job, values, schedule = builder.job, builder.job.values, builder.job.schedule
        key = (job.lora is None, str(job.quantization), values.activation_checkpointing, values.max_length)
        key += (schedule.batch_size, schedule.gradient_accumulation_steps > 1)
        if key not in self._layer_costs:
            if values.activation_checkpointing == 'offload':
                checkpointed = replace(builder, job=with_values(job, activation_checkpointing='all'))
                self._layer_costs[key] = self._counted_costs(checkpointed).with_offloaded_inputs()
            else:
                option = f'activation_checkpointing={values.activation_checkpointing}'
                self._log(f'counting steps of {_micro_batch(job)}, {option}')
                self._layer_costs[key] = layer_costs(builder)
        return self._layer_costs[key]


def _micro_batch(job: Job) -> str:
    return f'{job.schedule.batch_size} x {job.values.max_length:,} tokens'
