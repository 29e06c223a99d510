"""The memory plan of a run: what it needs, and which GPUs it fits."""

from dataclasses import dataclass
from typing import Any

from ..config.sections import Checkpoint
from ..config.specs import StepSpec
from ..config.strategy_traits import traits_of
from .model_sizes import ModelSizes
from .step_estimate import StepEstimate
from .strategies import LIBRARIES, Cluster, StrategyMemory
from .units import CONTEXT, GIB, usable_bytes
from .variants import sequence_shard

# Bytes of a value in float32 (trained weights in a checkpoint and in an exported adapter) and in bf16.
FP32, BF16 = 4, 2


@dataclass(frozen=True)
class GpuFit:
    """Whether a run fits a GPU of `gb` GB.

    Args:
        gb: The memory of the GPU.
        fits: Whether the run of the config fits.
        options: The changes that make it fit; None: no suggested change does.
        peak: Bytes of the peak with them.
        checkpointed: Layers with activation checkpointing with them.
    """

    gb: float
    fits: bool
    options: tuple[str, ...] | None
    peak: int | None
    checkpointed: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        options = None if self.options is None else list(self.options)
        return dict(gb=self.gb, fits=self.fits, options=options, peak=self.peak, checkpointed=self.checkpointed)


@dataclass(frozen=True)
class MemoryPlan:
    """What a run needs.

    Args:
        step: Its optimizer step.
        checkpoint: Its section `checkpoint`.
        source: Where the values of the model's config come from.
        sizes: The sizes of the model.
        minimum: The memory with every layer checkpointed, if the option is 'auto'.
        counted: The memory counted on fake tensors.
        measured: The memory and speed measured on this machine's GPU; None: there is none, or the steps do not fit.
        gpu: The name of this machine's GPU.
        gpu_bytes: Its memory.
        gpu_fits: Whether GPUs of other sizes fit the run.
        unsupported: What this machine's GPU lacks for the run.
        warning: A remark about a run that is possible nevertheless.
        cluster: The GPUs to plan every strategy on.
        cluster_gpu_sizes: GB that each of them may have.
        strategies: The memory under each strategy on the cluster.
    """

    step: StepSpec
    checkpoint: Checkpoint
    source: str
    sizes: ModelSizes
    minimum: StepEstimate
    counted: StepEstimate
    measured: StepEstimate | None
    gpu: str | None
    gpu_bytes: int | None
    gpu_fits: tuple[GpuFit, ...]
    unsupported: str | None = None
    warning: str | None = None
    cluster: Cluster | None = None
    cluster_gpu_sizes: tuple[float, ...] = ()
    strategies: tuple[StrategyMemory, ...] = ()

    @property
    def needed(self) -> int:
        """The minimum bytes of one device, with the context of CUDA."""
        return needed_bytes(self.minimum)

    @property
    def is_sharded(self) -> bool:
        """Whether the strategy shards the model; the figures are those of one device that holds everything."""
        return not traits_of(self.step.strategy.name).is_replicated

    @property
    def fits_here(self) -> bool | None:
        """Whether the run fits this machine's GPU; None: there is none, or the strategy shards over several."""
        if self.gpu_bytes is None or self.is_sharded:
            return None
        return self.best.peak + CONTEXT <= usable_bytes(self.gpu_bytes / GIB)

    @property
    def best(self) -> StepEstimate:
        """The measured memory, or else the counted one."""
        return self.measured or self.counted

    @property
    def unquantized_experts(self) -> int:
        """Bytes of expert tensors that are not quantized in a quantized or float8 base; otherwise 0."""
        if self.step.model.quantization is None:
            return 0
        return self.sizes.experts * (FP32 if self.step.model.precision == 'fp32' else BF16)

    def disk(self) -> dict[str, int | None]:
        """Return the bytes of a checkpoint, of its exported adapter, and of all that are kept at the same time."""
        checkpoint = self.best.optimizer + FP32 * self.sizes.trained
        exports = self.step.model.lora is not None and self.checkpoint.export_adapter
        adapter, keep = FP32 * self.sizes.trained * exports, self.checkpoint.keep
        # The oldest checkpoint is deleted once the newest is complete.
        total = None if keep is None else (keep + 1) * (checkpoint + adapter)
        return dict(checkpoint=checkpoint, adapter=adapter, total=total)

    def host(self) -> int:
        """Return a rough figure of the bytes of host memory: libraries, weights while loading, offloaded tensors."""
        offloaded = self.disk()['checkpoint'] if self.checkpoint.background else 0
        if self.step.model.activation_checkpointing == 'offload':
            tokens = self.step.schedule.batch_size * sequence_shard(self.step).model.max_length
            offloaded += self.sizes.layers * self.sizes.hidden_size * tokens * BF16
        return LIBRARIES + FP32 * self.sizes.largest + offloaded

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values; memory in bytes, times in seconds."""
        best, sizes = self.best, self.cluster_gpu_sizes
        return self._run() | dict(
            checkpointed_layers=best.checkpointed,
            layers=self.sizes.layers,
            measured=self.measured is not None,
            gpu=self.gpu,
            fits_here=self.fits_here,
            memory=self._memory(),
            host=self.host(),
            disk=self.disk(),
            warning=self.warning,
            tokens_per_second=best.speed,
            seconds_per_step=best.seconds,
            strategies=[vars(one) | dict(fits=[gb for gb in sizes if one.fits(gb)]) for one in self.strategies],
            cards=[fit.to_dict() for fit in self.gpu_fits],
        )

    def _run(self) -> dict[str, Any]:
        schedule, model = self.step.schedule, self.step.model
        return dict(
            base_model=model.base_model,
            architecture=self.source,
            parameters=self.sizes.parameters,
            trained_parameters=self.sizes.trained,
            strategy=self.step.strategy.name,
            sequence_parallel_size=self.step.strategy.sequence_parallel_size,
            batch_size=schedule.batch_size,
            gradient_accumulation_steps=schedule.gradient_accumulation_steps,
            max_length=model.max_length,
            activation_checkpointing=model.activation_checkpointing,
        )

    def _memory(self) -> dict[str, Any]:
        best = self.best
        return dict(
            frozen=best.frozen,
            experts_not_quantized=self.unquantized_experts,
            trained=best.resident - best.frozen,
            gradients=best.gradients,
            activations=best.activations,
            peak=best.peak,
            at=best.phase,
            counted_peak=self.counted.peak,
            optimizer=best.optimizer,
            needed=self.needed,
        )


def needed_bytes(minimum: StepEstimate) -> int:
    """Return the bytes that one device needs for a run: the figure of `xtune plan` and `xtune list-cfg`."""
    return minimum.peak + CONTEXT
