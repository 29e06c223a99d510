"""Locates the source of a NaN or infinity in an optimizer step that was skipped."""

import math

import torch

from ..data.batches import MicroBatch
from ..parallel.collectives import all_gather_objects
from ..tasks.sft import SupervisedFineTuning


class NonFiniteStep(ArithmeticError):
    """The loss or a gradient of an optimizer step is NaN or infinite, so the update was skipped.

    Attributes:
        loss: Mean loss of the step.
        grad_norm: Global gradient norm.
        places: The data rows of the non-finite micro-batch, or of the whole step if only a gradient is non-finite.
        where: The first non-finite module output, or the first parameter with a non-finite gradient.
    """

    def __init__(self, loss: float, grad_norm: float, places: list[str], where: str) -> None:
        super().__init__(loss, grad_norm, places, where)
        self.loss, self.grad_norm, self.places, self.where = loss, grad_norm, places, where


def diagnose_non_finite(
    task: SupervisedFineTuning, micro_batches: list[MicroBatch], loss: float, grad_norm: float
) -> NonFiniteStep:
    """Return the error of a step; repeats the forward pass and checks the output of every module. A collective call."""
    gathered = all_gather_objects([place for batch in micro_batches for place in batch.places])
    # Without duplicates: ranks with shards of one sequence have the same rows.
    places = list(dict.fromkeys(place for of_rank in gathered for place in of_rank))
    if math.isfinite(loss):
        names = [n for n, p in task.trained_parameters().items() if p.grad is not None and not p.grad.isfinite().all()]
        where = f'the gradient of {names[0]}' if names else 'the gradient norm'
        others = f' and {len(names) - 1} more' if len(names) > 1 else ''
        return NonFiniteStep(loss, grad_norm, places, where + others)
    # Every rank runs all of its batches: a sharded model needs all ranks in each forward pass.
    modules = [(_first_module(task, batch), batch.places) for batch in micro_batches]
    for module, rows in (pair for of_rank in all_gather_objects(modules) for pair in of_rank):
        if module:
            return NonFiniteStep(loss, grad_norm, rows, f'the output of {module}')
    return NonFiniteStep(loss, grad_norm, places, 'the loss itself')


@torch.no_grad()
def _first_module(task: SupervisedFineTuning, batch: MicroBatch) -> str | None:
    """Return the name of the first module in execution order whose output is non-finite."""
    names: list[str] = []

    def check(name: str):
        def hook(_module, _inputs, output) -> None:
            tensors = output if isinstance(output, (tuple, list)) else (output,)
            if not names and any(torch.is_tensor(t) and not t.isfinite().all() for t in tensors):
                names.append(name)

        return hook

    handles = [module.register_forward_hook(check(name)) for name, module in task.llm.named_modules() if name]
    try:
        is_finite = math.isfinite(task(batch).item())
    finally:
        for handle in handles:
            handle.remove()
    return names[0] if names else (None if is_finite else 'the loss')
