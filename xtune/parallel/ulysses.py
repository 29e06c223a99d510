"""Sequence parallelism: neighbouring processes split each row, and attention exchanges heads for columns (Ulysses).

Two processes, a row of 8 columns, 4 heads:

    outside attention   process 0: columns 0-3 of all heads    process 1: columns 4-7 of all heads
    inside attention    process 0: columns 0-7 of heads 0-1    process 1: columns 0-7 of heads 2-3

Everything but attention treats each token by itself, so a process never holds more than its columns of the activations.
Each process has the loss of its own targets; gradients are summed over all processes, as without.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from transformers import PreTrainedModel

from ..utils.quiet import quiet

# The name of the attention that exchanges, in transformers' AttentionInterface.
ATTENTION = 'xtune_ulysses'


class SequenceParallelGroup:
    """The processes that share rows, this one among them.

    Args:
        llm: The model, the same in every process, whose attention is replaced.
        size: Processes in a team.
        timeout: Seconds after which an exchange that is not joined by all ends the run.
    """

    def __init__(self, llm: torch.nn.Module, size: int, timeout: float) -> None:
        from . import ulysses_attention  # noqa: F401  registers it

        group, _ = dist.new_subgroups(size, timeout=timedelta(seconds=timeout))
        self._group = weakref.ref(group)  # torch has it; with a reference here it would outlive its destruction
        self.size, self.part = size, dist.get_rank(group)
        self.model = base_of(llm)
        self.inner: str = self.model.config._attn_implementation
        self._attend_with(ATTENTION)

    @property
    def group(self) -> dist.ProcessGroup:
        """Its process group, which is there until the run's groups are destroyed."""
        group = self._group()
        assert group is not None, 'the process groups of this run are destroyed'
        return group

    def arguments(self, positions_BS: torch.Tensor) -> dict[str, Any]:
        """Return what the model's call takes beside its columns, of rows with these positions, for its attention."""
        return dict(team_row=Row(self, positions_BS))

    @contextmanager
    def whole_rows(self) -> Iterator[None]:
        """Let the model attend within this process, as generation does."""
        self._attend_with(self.inner)
        try:
            yield
        finally:
            self._attend_with(ATTENTION)

    def _attend_with(self, name: str) -> None:
        with quiet():
            self.model.set_attn_implementation(name)


@dataclass
class Row:
    """What attention needs to know of a micro-batch: its `team` and the positions [B, S] of whole rows.

    `masks` keeps what was made for one layer for the next, by width of the window.
    """

    team: SequenceParallelGroup
    positions_BS: torch.Tensor
    masks: dict[int | None, Any] = field(default_factory=dict)


def base_of(llm: torch.nn.Module) -> PreTrainedModel:
    """Return the transformers model of `llm`, which may have an adapter."""
    return llm if isinstance(llm, PreTrainedModel) else llm.get_base_model()


def exchange(tensor: torch.Tensor, split: int, join: int, group: dist.ProcessGroup) -> torch.Tensor:
    """Return this process' part of dimension `split` with the parts of all processes along `join`.

    `exchange(x_BNsH, 1, 2, group)` is [B, N / size, s * size, H]. Its gradient is the exchange back.
    """
    return _Exchange.apply(tensor, split, join, group)


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, split: int, join: int, group: dist.ProcessGroup) -> torch.Tensor:
        ctx.way = split, join, group
        return _exchanged(tensor, split, join, group)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple:
        split, join, group = ctx.way
        return _exchanged(gradient, join, split, group), None, None, None


def _exchanged(tensor: torch.Tensor, split: int, join: int, group: dist.ProcessGroup) -> torch.Tensor:
    sent = torch.stack(tensor.chunk(dist.get_world_size(group), split))
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent, group=group)
    return torch.cat(received.unbind(), dim=join)
