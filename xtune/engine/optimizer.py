"""The optimizer and its schedule, counted in optimizer steps."""

from collections.abc import Iterable
from functools import partial
from inspect import signature
from typing import Any

import torch
from mmengine.optim import OptimWrapper

from ..config.sections import Schedule
from ..config.strategy_traits import StrategyTraits
from ..errors import ConfigError


class CountedOptimizer(OptimWrapper):
    """The optimizer as mmengine's schedulers and hooks see it: learning rates and a count of steps.

    The strategy updates the weights. The loop calls `step` afterwards, because schedulers warn if no step was counted.
    """

    def step(self, **_: Any) -> None:
        """Do nothing; mmengine counts the calls."""


def build_optimizer(
    optimizer: partial, traits: StrategyTraits, parameters: Iterable[torch.nn.Parameter]
) -> torch.optim.Optimizer:
    """Return the optimizer over `parameters`; its fused implementation if it has one and the parameters are on a GPU.

    Args:
        optimizer: The class of the section `optimizer`, with its arguments.
        traits: The strategy of the run.
        parameters: The trained parameters.

    Raises:
        ConfigError: It refuses its arguments, or these parameters.
    """
    parameters = list(parameters)
    fused = uses_fused_kernel(optimizer, traits) and all(p.is_cuda for p in parameters)
    try:
        return optimizer(parameters, fused=True) if fused else optimizer(parameters)
    except (TypeError, ValueError) as error:
        raise ConfigError(f'optimizer {optimizer.func.__name__} refuses its arguments: {error}') from error


def uses_fused_kernel(optimizer: partial, traits: StrategyTraits) -> bool:
    """Return whether the optimizer runs as one kernel on a GPU.

    The default implementations of torch allocate intermediate results of 4 bytes per parameter.
    """
    chosen = {'fused', 'foreach', 'capturable', 'differentiable'} & set(optimizer.keywords)
    return 'fused' in signature(optimizer.func).parameters and not traits.is_zero and not chosen


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
