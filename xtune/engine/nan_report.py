"""Find out where a NaN or an infinity came from, before the optimizer spreads it."""

import math
from typing import TYPE_CHECKING

import torch

from ..data.batches import MicroBatch
from ..parallel.collectives import all_gather_objects

if TYPE_CHECKING:
    from ..tasks.sft import SupervisedFineTuning


class NonFiniteStep(ArithmeticError):
    """An optimizer step was not taken: its loss or gradient is not finite.

    `places` are the rows whose loss is not finite (all of the step's, if only the gradient is not), `where` names the
    first module or the parameter.
    """

    def __init__(self, loss: float, grad_norm: float, places: list[str], where: str) -> None:
        super().__init__(loss, grad_norm, places, where)
        self.loss, self.grad_norm, self.places, self.where = loss, grad_norm, places, where


def explain(task: 'SupervisedFineTuning', data: list[MicroBatch], loss: float, grad_norm: float) -> NonFiniteStep:
    """Return the error for a step on `data`; runs the forward pass again, with a check at every module."""
    found = all_gather_objects([place for batch in data for place in batch.places])
    places = list(dict.fromkeys(place for one in found for place in one))  # processes that split rows say the same
    if math.isfinite(loss):
        names = [n for n, p in task.trained_parameters().items() if p.grad is not None and not p.grad.isfinite().all()]
        where = f'the gradient of {names[0]}' if names else 'the gradient norm'
        more = f' and {len(names) - 1} more' if len(names) > 1 else ''
        return NonFiniteStep(loss, grad_norm, places, where + more)
    # Every process runs all of its batches: a model that is spread needs the others in each forward pass.
    firsts = [(_first_module(task, batch), batch.places) for batch in data]
    for first, rows in (found for one in all_gather_objects(firsts) for found in one):
        if first:
            return NonFiniteStep(loss, grad_norm, rows, f'the output of {first}')
    return NonFiniteStep(loss, grad_norm, places, 'the loss itself')


@torch.no_grad()
def _first_module(task: 'SupervisedFineTuning', batch: MicroBatch) -> str | None:
    """Return the name of the first module in execution order whose output is not finite."""
    found: list[str] = []

    def check(name: str):
        def hook(_module, _inputs, output) -> None:
            tensors = output if isinstance(output, (tuple, list)) else (output,)
            if not found and any(torch.is_tensor(t) and not t.isfinite().all() for t in tensors):
                found.append(name)

        return hook

    handles = [module.register_forward_hook(check(name)) for name, module in task.llm.named_modules() if name]
    try:
        finite = math.isfinite(task(batch).item())
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else (None if finite else 'the loss')
