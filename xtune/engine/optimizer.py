"""The optimizer and its schedule, counted in optimizer steps."""

from collections.abc import Iterable
from inspect import signature
from typing import Any

import torch
from mmengine.optim import OptimWrapper

from ..config.sections import Schedule
from ..config.strategy_traits import traits_of
from ..config.wire import Job
from ..errors import ConfigError


class CountedOptimizer(OptimWrapper):
    """What mmengine's schedulers and hooks see of the optimizer: learning rates, and that steps are done.

    The strategy updates the weights. The loop calls `step` afterwards, because schedulers warn if no step was counted.
    """

    def step(self, **_: Any) -> None:
        """Do nothing; mmengine counts the calls."""


def build_optimizer(job: Job, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer of `job` over `parameters`.

    Raises:
        ConfigError: It refuses its arguments, or these parameters.
    """
    kind = job.optimizer.func
    try:
        return _built(job, list(parameters))
    except (TypeError, ValueError) as error:
        raise ConfigError(f'optimizer {kind.__name__} refuses its arguments: {error}') from error


def _built(job: Job, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    if has_kernel(job) and all(p.is_cuda for p in parameters):
        return job.optimizer(parameters, fused=True)
    return job.optimizer(parameters)


def has_kernel(job: Job) -> bool:
    """Tell whether the optimizer is one kernel on a GPU: what lies between torch's default ones takes 4 bytes a
    parameter."""
    chosen = {'fused', 'foreach', 'capturable', 'differentiable'} & set(job.optimizer.keywords)
    return (
        'fused' in signature(job.optimizer.func).parameters and not traits_of(job.strategy.name).is_zero and not chosen
    )


def schedulers(schedule: Schedule, total_steps: int) -> list[dict]:
    """Return mmengine's parameter schedulers: linear warm-up, then cosine, linear or constant.

    Counted in optimizer steps from 0, the peak is at the end of the warm-up, and cosine and linear reach
    `min_lr_ratio` at `total_steps`, one step after the last.
    """
    warmup = min(round(schedule.warmup_ratio * total_steps), total_steps - 1)
    parts, least = [], schedule.min_lr_ratio
    if warmup:
        parts.append(dict(type='LinearLR', start_factor=1 / (warmup + 1), by_epoch=False, begin=0, end=warmup + 1))
    if schedule.lr_schedule == 'cosine':
        falls = dict(type='CosineAnnealingLR', T_max=total_steps - warmup, eta_min_ratio=least, end=total_steps)
        parts.append(falls | dict(by_epoch=False, begin=warmup))
    elif schedule.lr_schedule == 'linear':
        # mmengine's LinearLR is at its end_factor one step before its `end`.
        falls = dict(type='LinearLR', start_factor=1.0, end_factor=least, end=total_steps + 1)
        parts.append(falls | dict(by_epoch=False, begin=warmup))
    return parts
