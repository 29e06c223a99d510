"""What the processes of a run count, sum and decide together. With one process each of these costs nothing."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from ..errors import XtuneError

# Bytes of gradients that travel in one message.
BUCKET = 64 * 2**20


def is_distributed() -> bool:
    """Tell whether this run has more than one process."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Return the place of this process among all, from 0."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if is_distributed() else 1


def all_reduce_counts(*counts: int) -> list[int]:
    """Return the sums of `counts` over all processes. They travel between CPUs, so no GPU is waited for."""
    if not is_distributed():
        return list(counts)
    total = torch.tensor(counts, dtype=torch.int64)
    dist.all_reduce(total)
    return total.tolist()


def all_reduce_sum(values: torch.Tensor) -> torch.Tensor:
    """Return `values`, of any shape, summed over all processes."""
    if is_distributed():
        values = values.clone()
        dist.all_reduce(values)
    return values


def all_reduce_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Sum the gradients over all processes, in place. A parameter that got none here counts as zero."""
    if not is_distributed():
        return
    pending: list[torch.Tensor] = []
    held = 0
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradient = parameter.grad
        if pending and (held >= BUCKET or gradient.dtype != pending[0].dtype):
            _sum_bucket(pending)
            pending, held = [], 0
        pending.append(gradient)
        held += gradient.numel() * gradient.element_size()
    if pending:
        _sum_bucket(pending)


def _sum_bucket(gradients: list[torch.Tensor]) -> None:
    joined = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(joined)
    for gradient, part in zip(gradients, joined.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def all_gather_objects(value: Any) -> list[Any]:
    """Return what each process passes, in order of rank. Values travel as pickles between the processes of one run."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast_from_rank0(tensor: torch.Tensor) -> None:
    """Replace the values of `tensor`, of any shape, by those of the first process, in place."""
    if is_distributed():
        dist.broadcast(tensor, 0)


@contextmanager
def raise_on_all_ranks() -> Iterator[None]:
    """Let an XtuneError in one process be raised in all of them, so that none waits for the others.

    Raises:
        XtuneError: The first process' error, by rank.
    """
    error = None
    try:
        yield
    except XtuneError as own:
        error = own
    found = [e for e in all_gather_objects(error and (type(error), str(error))) if e]
    if found:
        kind, text = found[0]
        raise (error or kind(text))
