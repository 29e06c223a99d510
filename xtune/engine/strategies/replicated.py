"""Each rank holds the full model, on one GPU or the CPU; with one rank, or with data parallelism (`ddp`)."""

import torch

from ...parallel.collectives import all_reduce_gradients
from .base import ModelBuilder
from .local_optimizer import LocalOptimizerStrategy, clip


class Replicated(LocalOptimizerStrategy):
    """Gradients are all-reduced once, after the last micro-batch of a step.

    Gradient accumulation therefore costs one all-reduce, and parameters that some micro-batch does not reach need no
    special case.
    """

    def place(self, builder: ModelBuilder) -> torch.nn.Module:
        """See `Strategy`."""
        llm = builder.build()
        builder.report(llm)
        return llm

    def reduce_and_clip(self, max_grad_norm: float | None) -> torch.Tensor:
        """See `Strategy`."""
        all_reduce_gradients(self.trained())
        return clip(self.trained(), max_grad_norm)
