"""Collectives over all ranks: all-reduce, all-gather, broadcast, and error propagation. Free of cost on one rank."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from ..errors import XtuneError

# Bytes of gradients in one all-reduce.
BUCKET_BYTES = 64 * 2**20


def is_distributed() -> bool:
    """Return whether this run has more than one rank."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Return the rank of this process, from 0."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Return the number of ranks."""
    return dist.get_world_size() if is_distributed() else 1


def all_reduce_counts(*counts: int) -> list[int]:
    """Return the sums of `counts` over all ranks. They are reduced on CPUs, without synchronizing with a GPU."""
    if not is_distributed():
        return list(counts)
    total = torch.tensor(counts, dtype=torch.int64)
    dist.all_reduce(total)
    return total.tolist()


def all_reduce_sum(values: torch.Tensor) -> torch.Tensor:
    """Return `values`, of any shape, summed over all ranks."""
    if is_distributed():
        values = values.clone()
        dist.all_reduce(values)
    return values


def all_reduce_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Sum the gradients over all ranks, in place. A parameter without a gradient on this rank counts as zero."""
    if not is_distributed():
        return
    bucket: list[torch.Tensor] = []
    bucket_bytes = 0
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradient = parameter.grad
        if bucket and (bucket_bytes >= BUCKET_BYTES or gradient.dtype != bucket[0].dtype):
            _all_reduce_bucket(bucket)
            bucket, bucket_bytes = [], 0
        bucket.append(gradient)
        bucket_bytes += gradient.nbytes
    if bucket:
        _all_reduce_bucket(bucket)


def _all_reduce_bucket(gradients: list[torch.Tensor]) -> None:
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(total.view_as(gradient))


def all_gather_objects(value: Any) -> list[Any]:
    """Return the values of all ranks, in order of rank. They are pickled, which is safe between ranks of one run."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast_from_rank0(tensor: torch.Tensor) -> None:
    """Replace the values of `tensor`, of any shape, by those of rank 0, in place."""
    if is_distributed():
        dist.broadcast(tensor, 0)


@contextmanager
def raise_on_all_ranks() -> Iterator[None]:
    """Raise an XtuneError of any rank on all ranks, so that none waits for the others in a collective.

    Raises:
        XtuneError: The error of the lowest rank that has one.
    """
    error = None
    try:
        yield
    except XtuneError as raised:
        error = raised
    errors = [e for e in all_gather_objects(error and (type(error), str(error))) if e]
    if errors:
        error_class, text = errors[0]
        raise (error or error_class(text))
