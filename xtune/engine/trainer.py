"""The training step: gradient accumulation, one normalization, one update, one host sync."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from ..data.batches import MicroBatch
from ..parallel.collectives import all_reduce_counts, all_reduce_sum
from ..tasks.sft import SupervisedFineTuning
from .nan_report import diagnose_non_finite
from .strategies import Strategy


@dataclass(frozen=True)
class StepMetrics:
    """Figures of one optimizer step, over all ranks.

    Attributes:
        loss: Mean over the label tokens of the step.
        grad_norm: Global L2 norm before clipping.
        num_tokens: Tokens of samples, without padding.
        num_label_tokens: Tokens with a label, at least 1.
        num_flags: Ranks whose `Trainer.rank_flag` was true.
    """

    loss: float
    grad_norm: float
    num_tokens: int
    num_label_tokens: int
    num_flags: int

    @property
    def is_finite(self) -> bool:
        """Whether loss and gradient norm are finite."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


class Trainer:
    """Trains a task with a strategy; each call of `train_step` is one optimizer step.

    Args:
        task: Maps a micro-batch to its summed loss.
        strategy: Distributes model, gradients and optimizer state; attached to `task`.
        max_grad_norm: Global L2 norm to which gradients are clipped; None: no clipping.
        wrappers: Features around the step, applied in order: each may replace `forward_backward` or `train_step`.

    `rank_flag` is called once per step; `StepMetrics.num_flags` is the number of ranks where it returned True.
    """

    def __init__(
        self,
        task: SupervisedFineTuning,
        strategy: Strategy,
        max_grad_norm: float | None,
        wrappers: Iterable[Callable[['Trainer'], None]] = (),
    ) -> None:
        self.task, self.strategy, self.max_grad_norm = task, strategy, max_grad_norm
        self.rank_flag: Callable[[], bool] = lambda: False
        for wrap in wrappers:
            wrap(self)

    def train_step(self, micro_batches: list[MicroBatch]) -> StepMetrics:
        """Do one optimizer step on the micro-batches of this rank; all ranks pass the same number of them.

        Raises:
            NonFiniteStep: The loss or a gradient is NaN or infinite; the weights are as before the step.
            OutOfMemory: The step does not fit, even with every layer checkpointed.
        """
        num_label_tokens, num_tokens = all_reduce_counts(
            sum(batch.num_targets for batch in micro_batches), sum(batch.num_tokens for batch in micro_batches)
        )
        num_label_tokens = max(num_label_tokens, 1)
        loss_sum = self.forward_backward(micro_batches, num_label_tokens)
        grad_norm = self.strategy.reduce_and_clip(self.max_grad_norm)
        values = self.all_reduce_metrics(loss_sum, grad_norm, num_label_tokens)
        # An optimizer that can skip a non-finite update itself queues it before the only host sync.
        loss, grad_norm, num_flags = self.strategy.optimizer_step(values)
        metrics = StepMetrics(loss, grad_norm, num_tokens, num_label_tokens, int(num_flags))
        if not metrics.is_finite:
            raise diagnose_non_finite(self.task, micro_batches, loss, grad_norm)
        self.strategy.zero_grad()
        return metrics

    def forward_backward(self, micro_batches: list[MicroBatch], num_label_tokens: int) -> torch.Tensor:
        """Accumulate the gradients of the summed loss over `num_label_tokens`; return the summed loss, a scalar."""
        losses = []
        for number, batch in enumerate(micro_batches, 1):
            loss_sum = self.strategy.forward(batch)
            self.strategy.backward(loss_sum / num_label_tokens, is_last=number == len(micro_batches))
            losses.append(loss_sum.detach())
        return torch.stack(losses).sum()

    def all_reduce_metrics(
        self, loss_sum: torch.Tensor, grad_norm: torch.Tensor, num_label_tokens: int
    ) -> torch.Tensor:
        """Return [mean loss, gradient norm, number of flags] of all ranks, on the device, in one all-reduce."""
        flag = loss_sum.new_full((), float(self.rank_flag()))
        loss_sum, num_flags = all_reduce_sum(torch.stack([loss_sum, flag])).unbind()
        grad_norm = grad_norm.float().to(loss_sum.device)  # the norm of offloaded gradients is on the CPU
        return torch.stack([loss_sum / num_label_tokens, grad_norm, num_flags])
