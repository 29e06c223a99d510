"""The part of every optimizer step that one rank computes."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from .batches import FULL_SEQUENCE, PAD_TO_LONGEST, MicroBatch, Padding, SequenceShard
from .collate import SampleStore, collate

T = TypeVar('T')


@dataclass(frozen=True)
class RankShard:
    """Which micro-batches, and which part of their sequences, belong to this rank.

    Attributes:
        dp_rank: Data-parallel rank: takes every `dp_size`-th micro-batch, starting with this one.
        dp_size: Number of data-parallel ranks.
        sequence: Part of each sequence, under sequence parallelism.
        padding: How sequences are padded.
    """

    dp_rank: int = 0
    dp_size: int = 1
    sequence: SequenceShard = FULL_SEQUENCE
    padding: Padding = PAD_TO_LONGEST

    @classmethod
    def of_rank(
        cls, rank: int, world_size: int, sequence_parallel_size: int, padding: Padding = PAD_TO_LONGEST
    ) -> 'RankShard':
        """Return the shard of `rank`, where `sequence_parallel_size` consecutive ranks split each sequence."""
        sequence = SequenceShard(rank % sequence_parallel_size, sequence_parallel_size)
        return cls(rank // sequence_parallel_size, world_size // sequence_parallel_size, sequence, padding)

    def select(self, micro_batches: list[T], empty: T) -> list[T]:
        """Return this rank's micro-batches. All ranks get the same number, filled up with `empty`."""
        rounds = -(-len(micro_batches) // self.dp_size)
        missing = rounds * self.dp_size - len(micro_batches)
        return (micro_batches + [empty] * missing)[self.dp_rank :: self.dp_size]

    def collate(self, store: SampleStore, sequences: list[np.ndarray], pad_id: int, concatenated: bool) -> MicroBatch:
        """Return this rank's part of one of its micro-batches; `sequences` are token ranges [n, 3]."""
        return collate(store, sequences, pad_id, concatenated, self.sequence, self.padding)


SINGLE_RANK = RankShard()
