"""Make the memory plan of a run, for this machine's GPU and for GPUs of other sizes."""

from collections.abc import Callable

import torch

from ..config.sections import Checkpoint
from ..config.specs import StepSpec
from ..engine.packing_check import early_refusal
from ..methods.float8_checks import device_problem, float8_config
from ..models.loading.config_checks import length_warning
from ..parallel import compatibility
from .estimator import MemoryEstimator
from .memory_plan import GpuFit, MemoryPlan
from .strategies import Cluster, memory_of_strategies
from .units import GIB, usable_bytes

GPU_SIZES = (8, 16, 24, 40, 80, 141)
CLUSTER_GPU_SIZES = (24, 40, 80, 141)


def make_plan(
    step: StepSpec,
    checkpoint: Checkpoint,
    gpu_sizes: tuple[float, ...],
    device: torch.device | None,
    log: Callable[[str], None] = lambda line: None,
    cluster: Cluster | None = None,
) -> MemoryPlan:
    """Return the memory plan of a run.

    Args:
        step: Its optimizer step.
        checkpoint: Its section `checkpoint`.
        gpu_sizes: GB of the GPUs to plan for; with a `cluster`, GB that each of its GPUs may have.
        device: This machine's GPU, if it has one.
        log: Receives a line before each part that may take long.
        cluster: Several GPUs; every strategy is planned on them, instead of changes that make the run fit one GPU.

    Raises:
        ConfigError: The method does not go with the strategy.
        ModelError: The model cannot be built from its config.json, or is not supported.
    """
    # With devices=2 a strategy for several devices is accepted on one.
    compatibility.check(compatibility.method_of_model(step.model), step.strategy.name, devices=2)
    estimator = MemoryEstimator(step, log)
    gpu = gpu_bytes = measured = unsupported = None
    limit = 0.0
    if device is not None:
        properties = torch.cuda.get_device_properties(device)
        gpu, gpu_bytes = properties.name, properties.total_memory
        limit = usable_bytes(gpu_bytes / GIB)
        unsupported = device_problem(device) if float8_config(step.model.quantization) else None
        if unsupported is None:
            measured = estimator.profile(step, device, limit)
    return MemoryPlan(
        step=step,
        checkpoint=checkpoint,
        source=estimator.source,
        sizes=estimator.sizes,
        minimum=estimator.minimum(),
        counted=estimator.estimate(step, limit),
        measured=measured,
        gpu=gpu,
        gpu_bytes=gpu_bytes,
        gpu_fits=() if cluster else tuple(_fit(estimator, gb) for gb in gpu_sizes),
        unsupported=unsupported,
        warning=_warning(estimator, device or torch.device('cpu')),
        cluster=cluster,
        cluster_gpu_sizes=gpu_sizes if cluster else (),
        strategies=memory_of_strategies(estimator, cluster) if cluster else (),
    )


def _fit(estimator: MemoryEstimator, gb: float) -> GpuFit:
    found = estimator.first_fit(usable_bytes(gb))
    if found is None:
        return GpuFit(gb, False, None, None, None)
    variant, estimate = found
    return GpuFit(gb, not variant.options, variant.options, estimate.peak, estimate.checkpointed)


def _warning(estimator: MemoryEstimator, device: torch.device) -> str | None:
    step, config = estimator.step, estimator.config
    refusal = early_refusal(config, step.model.attn_implementation, device) if step.is_packed else None
    length = length_warning(config, step.model.max_length)
    return '; '.join(filter(None, [length, refusal and f'xtune train refuses it: {refusal}'])) or None
