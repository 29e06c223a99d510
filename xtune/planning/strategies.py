"""The memory of each device and each host of a run under every strategy."""

from dataclasses import dataclass

from ..config.strategy_traits import traits_of
from ..parallel import compatibility
from .estimator import MemoryEstimator
from .model_sizes import WEIGHT_AND_GRADIENT
from .sharding import BF16, ShardedSizes, sharded_peak
from .step_estimate import StepEstimate
from .units import CONTEXT, GIB, NCCL_CONTEXT, usable_bytes

# Values in one gradient bucket of DeepSpeed, and gathered parameters that it keeps.
BUCKET, MAX_GATHERED = 500_000_000, 1_000_000_000
# Bytes of host memory that Python, torch and CUDA take in each process before a weight is read.
LIBRARIES = 4 * GIB
# As in --strategy, the fastest first.
FASTEST_FIRST = ('ddp', 'zero1', 'zero2', 'fsdp2', 'zero3', 'zero2_offload', 'fsdp2_offload', 'zero3_offload')


@dataclass(frozen=True)
class Cluster:
    """The number of GPUs of a run, spread evenly over its number of hosts."""

    gpus: int
    hosts: int

    @property
    def gpus_per_host(self) -> int:
        """GPUs of a host."""
        return self.gpus // self.hosts


@dataclass(frozen=True)
class StrategyMemory:
    """Bytes of each device and each host of a run under a strategy; `refused` is the reason if it does not run."""

    strategy: str
    device: float
    host: float
    refused: str | None = None

    def fits(self, gb: float) -> bool:
        """Return whether the run fits devices of `gb` GB."""
        return self.refused is None and self.device <= usable_bytes(gb)


def memory_of_strategies(estimator: MemoryEstimator, cluster: Cluster) -> tuple[StrategyMemory, ...]:
    """Return the memory of the estimator's run on `cluster` under every strategy.

    `one_device` and `ddp` are counted operation by operation, with every layer checkpointed if the option is 'auto'.
    The other strategies are computed from these figures and from the sizes of the model.
    """
    step = estimator.step
    sizes, minimum = estimator.sharded_sizes(), estimator.minimum()
    checkpointed = estimator.estimate(step.with_model(activation_checkpointing='all'))
    kept_activations = minimum.peak - checkpointed.peak
    method = compatibility.method_of_model(step.model)
    table = []
    for name in compatibility.STRATEGIES:
        devices = 1 if traits_of(name).single_device else cluster.gpus
        device = _device(name, sizes, minimum, kept_activations, devices, step.schedule.gradient_accumulation_steps > 1)
        context = CONTEXT if devices == 1 else NCCL_CONTEXT
        refused = compatibility.REFUSED.get((method, name))
        if refused is None and devices == 1 and traits_of(name).offloads:
            refused = 'offload is for several devices; on one take a qlora preset'
        host = _host(name, sizes, estimator.sizes.largest, cluster)
        table.append(StrategyMemory(name, device + context, host, refused))
    return tuple(table)


def fastest_fit(table: tuple[StrategyMemory, ...], gb: float) -> StrategyMemory | None:
    """Return the fastest strategy for several devices that fits devices of `gb` GB; None: none does."""
    by_name = {memory.strategy: memory for memory in table}
    return next((by_name[name] for name in FASTEST_FIRST if by_name[name].fits(gb)), None)


def _device(
    name: str, sizes: ShardedSizes, minimum: StepEstimate, kept_activations: int, devices: int, accumulates: bool
) -> float:
    """Return the bytes of the peak of a device.

    Args:
        name: The strategy.
        sizes: The sizes of the model.
        minimum: The memory of the run on one device.
        kept_activations: Bytes that are added by layers without activation checkpointing.
        devices: The number of devices.
        accumulates: Whether a step has several micro-batches, so that gradients exist at the peak.
    """
    traits = traits_of(name, devices)
    if traits.is_replicated:
        return minimum.peak
    offload = traits.offloads
    if traits.shards_weights:
        peak = sharded_peak(sizes, devices, offload) + kept_activations
        if traits.is_zero:
            peak += BF16 * min(MAX_GATHERED, sizes.in_layers + sizes.ends) + 4 * min(BUCKET, sizes.trained)
            peak += BF16 * sizes.trained / devices if sizes.full and not offload else 0
        return peak
    # Every device holds all weights. In full fine-tuning DeepSpeed computes with bf16 weights, and shards their float32
    # master weights.
    share_elsewhere = 1 - 1 / devices
    saved = minimum.optimizer if offload else minimum.optimizer * share_elsewhere
    master_weights = 0 if offload else 4 * sizes.trained / devices
    saved += 2 * sizes.trained if sizes.full else 0
    gradients_at_peak = accumulates or minimum.phase not in ('forward', 'loss')
    saved += minimum.gradients * share_elsewhere * gradients_at_peak if traits.zero_stage > 1 else 0
    return minimum.peak - saved + master_weights + 4 * min(BUCKET, sizes.trained)


def fsdp2_memory(name: str, sizes: ShardedSizes, cluster: Cluster) -> StrategyMemory:
    """Return the memory of a run under `fsdp2` or `fsdp2_offload` with activation checkpointing in every layer."""
    device = sharded_peak(sizes, cluster.gpus, traits_of(name).offloads)
    return StrategyMemory(name, device + NCCL_CONTEXT, _host(name, sizes, 0, cluster))


def _host(name: str, sizes: ShardedSizes, largest: int, cluster: Cluster) -> float:
    """Return the bytes of the host that needs most: the host of rank 0, which reads the weights.

    `largest` are the parameters of the largest tensor, which each rank reads in float32.
    """
    traits = traits_of(name)
    ranks = 1 if traits.single_device else cluster.gpus_per_host
    libraries = LIBRARIES * ranks
    if not traits.shards_weights:
        loading = 4 * largest * ranks
        offloaded = sizes.trained * (WEIGHT_AND_GRADIENT + sizes.state) / cluster.hosts
        return libraries + max(loading, offloaded if traits.offloads else 0)
    offloaded = sizes.shards / cluster.hosts if traits.offloads else 0
    return libraries + max(sizes.loaded, offloaded)
