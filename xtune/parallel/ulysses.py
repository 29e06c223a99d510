"""Ulysses sequence parallelism: consecutive ranks shard each sequence, and attention exchanges sequence for heads.

Two ranks, a sequence of 8 tokens, 4 heads:

    outside attention   rank 0: tokens 0-3 of all heads    rank 1: tokens 4-7 of all heads
    inside attention    rank 0: tokens 0-7 of heads 0-1    rank 1: tokens 0-7 of heads 2-3

Everything but attention is per token, so a rank's activations are those of its sequence shard. Each rank has the loss
of its own targets; gradients are summed over all ranks, as without sequence parallelism.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from ..compat.transformers_private import attention_of
from ..utils.language_model import base_of
from ..utils.quiet import quiet

# The name of the attention function in transformers' AttentionInterface; see ulysses_attention.py, which registers it.
ATTENTION = 'xtune_ulysses'


class SequenceParallelGroup:
    """The ranks that shard sequences together, including this one.

    Args:
        llm: The model, the same on every rank; its attention is replaced.
        size: Ranks in the group.
        timeout: Seconds after which an all-to-all that some rank does not join ends the run.

    Attributes:
        sp_rank: This rank's index in the group.
        inner_attention: The name of the original attention, which computes on full sequences.
    """

    def __init__(self, llm: torch.nn.Module, size: int, timeout: float) -> None:
        group, _ = dist.new_subgroups(size, timeout=timedelta(seconds=timeout))
        self._group = weakref.ref(group)  # torch holds it; a reference here would keep it alive after its destruction
        self.size, self.sp_rank = size, dist.get_rank(group)
        self.model = base_of(llm)
        self.inner_attention: str = attention_of(self.model.config)
        self._set_attention(ATTENTION)

    @property
    def group(self) -> dist.ProcessGroup:
        """The process group, until the run's groups are destroyed."""
        group = self._group()
        assert group is not None, 'the process groups of this run are destroyed'
        return group

    @property
    def is_installed(self) -> bool:
        """Whether the model took the attention: some set their own whatever is asked for."""
        return attention_of(self.model.config) != self.inner_attention

    def model_kwargs(self, positions_BS: torch.Tensor) -> dict[str, Any]:
        """Return the arguments of the model's call that its attention needs, for the positions of full sequences."""
        return dict(ulysses_batch=UlyssesBatch(self, positions_BS))

    @contextmanager
    def full_sequences(self) -> Iterator[None]:
        """Return a context in which the model attends within this rank, as in generation."""
        self._set_attention(self.inner_attention)
        try:
            yield
        finally:
            self._set_attention(ATTENTION)

    def _set_attention(self, name: str) -> None:
        with quiet():
            self.model.set_attn_implementation(name)


@dataclass
class UlyssesBatch:
    """What attention needs to know of a micro-batch.

    Attributes:
        group: The ranks that shard its sequences.
        positions_BS: Positions [B, S] of full sequences.
        masks: Attention masks by sliding window, made for one layer and reused by the others.
    """

    group: SequenceParallelGroup
    positions_BS: torch.Tensor
    masks: dict[int | None, Any] = field(default_factory=dict)


def all_to_all(tensor: torch.Tensor, split_dim: int, concat_dim: int, group: dist.ProcessGroup) -> torch.Tensor:
    """Split `tensor` along `split_dim`, send one chunk to each rank, and concatenate the received ones.

    `all_to_all(x_BNsH, 1, 2, group)` is [B, N / size, s * size, H]. Its gradient is the exchange in reverse.
    """
    return _AllToAll.apply(tensor, split_dim, concat_dim, group)


class _AllToAll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tensor: torch.Tensor, split_dim: int, concat_dim: int, group: dist.ProcessGroup
    ) -> torch.Tensor:
        ctx.split_dim, ctx.concat_dim, ctx.group = split_dim, concat_dim, group
        return _all_to_all(tensor, split_dim, concat_dim, group)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple:
        return _all_to_all(grad, ctx.concat_dim, ctx.split_dim, ctx.group), None, None, None


def _all_to_all(tensor: torch.Tensor, split_dim: int, concat_dim: int, group: dist.ProcessGroup) -> torch.Tensor:
    sent = torch.stack(tensor.chunk(dist.get_world_size(group), split_dim))
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent, group=group)
    return torch.cat(received.unbind(), dim=concat_dim)
