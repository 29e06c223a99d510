"""What each device and each host of a run needs under every strategy."""

from dataclasses import dataclass

from ..parallel import compatibility
from .planner import CONTEXT, GIB, Planner, room
from .predict import Prediction
from .sharding import BF16, WEIGHT_AND_GRADIENT, Parts, parts_of, sharded_peak
from .variants import with_values

# Bytes that CUDA and NCCL take of a device that others talk to.
CONNECTED = GIB
# DeepSpeed sends gradients in buckets of so many values, and keeps so many gathered parameters.
BUCKET, LIVE = 500_000_000, 1_000_000_000
# Bytes of host memory that Python, torch and CUDA take in each process before a weight is read.
LIBRARIES = 4 * GIB
# As --strategy has them, the fastest first.
ORDER = ('ddp', 'zero1', 'zero2', 'fsdp2', 'zero3', 'zero2_offload', 'fsdp2_offload', 'zero3_offload')


@dataclass(frozen=True)
class Cluster:
    """The GPUs of a run, evenly on its hosts."""

    gpus: int
    hosts: int

    @property
    def on_a_host(self) -> int:
        """GPUs of a host."""
        return self.gpus // self.hosts


@dataclass(frozen=True)
class Need:
    """Bytes that each device and each host of a run needs under a strategy; `refused` says why it cannot be run."""

    strategy: str
    device: float
    host: float
    refused: str | None = None

    def fits(self, gb: float) -> bool:
        """Tell whether it can be run on devices of `gb` GB."""
        return self.refused is None and self.device <= room(gb)


def needs(planner: Planner, cluster: Cluster) -> tuple[Need, ...]:
    """Return what the planner's run needs on `cluster` under every strategy.

    The figures of one device and of `ddp` are counted operation by operation, with every layer recomputed if
    `activation_checkpointing` is 'auto'; those of the others are computed from them and from the sizes of the model.
    """
    job = planner.job
    parts, least = parts_of(job, planner.config), planner.least()
    recomputed = planner.counted(with_values(job, activation_checkpointing='all'))
    more = least.peak - recomputed.peak  # activations that this run keeps
    method = compatibility.method_of_run(job)
    found = []
    for name in compatibility.STRATEGIES:
        devices = 1 if name == 'one_device' else cluster.gpus
        device = _device(name, parts, least, more, devices, job.schedule.gradient_accumulation_steps > 1)
        context = CONTEXT if devices == 1 else CONNECTED
        refused = compatibility.REFUSED.get((method, name))
        if refused is None and devices == 1 and name.endswith('_offload'):
            refused = 'offload is for several devices; on one take a qlora preset'
        found.append(Need(name, device + context, _host(name, parts, planner.size().largest, cluster), refused))
    return tuple(found)


def best_of(found: tuple[Need, ...], gb: float) -> Need | None:
    """Return the fastest strategy for several devices that fits devices of `gb` GB; None: none does."""
    by_name = {need.strategy: need for need in found}
    return next((by_name[name] for name in ORDER if by_name[name].fits(gb)), None)


def _device(name: str, parts: Parts, least: Prediction, more: int, devices: int, several: bool) -> float:
    """Return the bytes of the peak of a device; `several`: gradients are there when the peak is reached."""
    if name in ('one_device', 'ddp') or devices == 1:
        return least.peak
    offload = name.endswith('_offload')
    if name.startswith(('fsdp2', 'zero3')):
        found = sharded_peak(parts, devices, offload) + more
        if name.startswith('zero3'):
            found += BF16 * min(LIVE, parts.in_layers + parts.ends) + 4 * min(BUCKET, parts.trained)
            found += BF16 * parts.trained / devices if parts.full and not offload else 0
        return found
    # Weights are whole. DeepSpeed computes with bf16 weights if all are trained, and shards their float32 copies.
    shared_out = 1 - 1 / devices
    gone = least.optimizer if offload else least.optimizer * shared_out
    masters = 0 if offload else 4 * parts.trained / devices
    gone += 2 * parts.trained if parts.full else 0
    there = several or least.where not in ('forward', 'loss')
    gone += least.gradients * shared_out * there if name != 'zero1' else 0
    return least.peak - gone + masters + 4 * min(BUCKET, parts.trained)


def sharded_need(name: str, parts: Parts, cluster: Cluster) -> Need:
    """Return the memory of a run under `fsdp2` or `fsdp2_offload` with full activation checkpointing."""
    device = sharded_peak(parts, cluster.gpus, name.endswith('_offload'))
    return Need(name, device + CONNECTED, _host(name, parts, 0, cluster))


def _host(name: str, parts: Parts, largest: int, cluster: Cluster) -> float:
    """Return the bytes of the host that needs most: that of the first process, which reads the weights.

    `largest` are the parameters of the largest tensor, which each process reads in float32.
    """
    processes = 1 if name == 'one_device' else cluster.on_a_host
    libraries = LIBRARIES * processes
    if not name.startswith(('fsdp2', 'zero3')):
        loading = 4 * largest * processes
        kept = parts.trained * (WEIGHT_AND_GRADIENT + parts.state) / cluster.hosts if name == 'zero2_offload' else 0
        return libraries + max(loading, kept)
    kept = parts.shards / cluster.hosts if name.endswith('_offload') else 0
    return libraries + max(parts.loaded, kept)
