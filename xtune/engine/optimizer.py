"""The optimizer and its schedule, counted in optimizer steps."""

from collections.abc import Callable, Iterable
from inspect import signature
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch.distributed.tensor import DTensor

from ..compat.torch_private import found_inf, takes_found_inf
from ..config.sections import Schedule
from ..config.wire import Job
from ..errors import ConfigError
from ..parallel.collectives import all_reduce_gradients, all_reduce_sum
from ..parallel.fsdp import full_tensor
from ..parallel.zero import ZeroEngine


class StepOptimizer(OptimWrapper):
    """An optimizer whose gradients are clipped by a call of its own, so that the norm can be checked first.

    mmengine's `AmpOptimWrapper` needs a GPU; here autocast belongs to the task, and bf16 needs no loss scaling.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, max_grad_norm: float | None) -> None:
        super().__init__(optimizer)
        self.max_grad_norm = max_grad_norm

    def loss(self, task: Callable[[Any], torch.Tensor], batch: Any) -> torch.Tensor:
        """Return the task's loss of `batch`, a scalar."""
        return task(batch)

    def backward(self, loss: torch.Tensor, last: bool = True, **_: Any) -> None:
        """Add the gradients of `loss`; `last` says that no micro-batch of the step follows."""
        loss.backward()

    def clip(self) -> torch.Tensor:
        """Sum the gradients over all processes, scale them to `max_grad_norm` at most, and return their global L2 norm
        before that, a scalar."""
        every = [p for group in self.param_groups for p in group['params']]
        if not any(isinstance(p, DTensor) for p in every):  # what is spread was summed in the backward pass
            all_reduce_gradients(every)
        parameters = [p for p in every if p.grad is not None]
        norm = full_tensor(torch.nn.utils.get_total_norm([p.grad for p in parameters]))
        if self.max_grad_norm:
            # A norm that is not finite would make every gradient so, and hide which parameter's was.
            finite = norm.nan_to_num(0.0, 0.0, 0.0)
            torch.nn.utils.clip_grads_with_norm_(parameters, self.max_grad_norm, finite)
        return norm

    def step_if_finite(self, values: torch.Tensor) -> bool:
        """Update if all `values` are finite, without waiting for the device to know; return False if the optimizer
        cannot, and nothing is done."""
        if not takes_found_inf(self.optimizer):
            return False
        with found_inf(self.optimizer, (~values.isfinite()).any().float()):
            self.step()
        return True

    def close(self) -> None:
        """Let go of what outlives the training; nothing here."""


class ZeroOptimizer(StepOptimizer):
    """The same over DeepSpeed's engine, which clips and updates in one."""

    def __init__(self, engine: ZeroEngine) -> None:
        super().__init__(engine.wrapped_optimizer, None)
        self.engine, self._losses = engine, []

    def loss(self, task: Callable[[Any], torch.Tensor], batch: Any) -> torch.Tensor:
        """Return the task's loss of `batch`, through the engine."""
        return self.engine(batch)

    def backward(self, loss: torch.Tensor, last: bool = True, **_: Any) -> None:
        """Add the gradients of `loss`; on the `last` they are reduced."""
        self._losses.append(loss.detach())
        self.engine.backward(loss, last)

    def clip(self) -> torch.Tensor:
        """Clip and update, unless a loss is not finite; return the norm before clipping, a scalar."""
        losses, self._losses = torch.stack(self._losses), []
        if all_reduce_sum((~losses.isfinite()).sum().float()).item():
            return losses.new_tensor(float('nan'))
        return self.engine.step().to(losses.device)

    def step_if_finite(self, values: torch.Tensor) -> bool:
        """Do nothing: `clip` did."""
        return False

    def step(self, **_: Any) -> None:
        """Do nothing: `clip` did."""

    def zero_grad(self, **_: Any) -> None:
        """Do nothing: the engine does after its update."""

    def close(self) -> None:
        """Take the engine off the model."""
        self.engine.close()


def build_optimizer(job: Job, parameters: Iterable[torch.nn.Parameter], device: torch.device) -> StepOptimizer:
    """Return the optimizer of `job` over `parameters`.

    Raises:
        ConfigError: It refuses its arguments, or these parameters.
    """
    kind = job.optimizer.func
    try:
        return StepOptimizer(_built(job, list(parameters)), job.schedule.max_grad_norm)
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
        'fused' in signature(job.optimizer.func).parameters and not job.strategy.name.startswith('zero') and not chosen
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
