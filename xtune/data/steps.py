"""Optimizer steps as a torch `Dataset`: item i has the micro-batches of step i, from a schedule or from a stream."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from torch.utils.data import Dataset

from .batch_schedule import BatchSchedule
from .batches import MicroBatch
from .collate import SampleStore
from .cursor import Cursor
from .rank_shard import SINGLE_RANK, RankShard
from .stream import RowStream


class Step(list[MicroBatch]):
    """The micro-batches of one rank in one optimizer step. `cursor` is the position of a stream after the step."""

    cursor: Cursor | None = None

    def pin_memory(self) -> 'Step':
        """Return the step in pinned memory, so that copies to the GPU overlap with its computation."""
        step = Step(batch.pin_memory() for batch in self)
        step.cursor = self.cursor
        return step


class ScheduledSteps(Dataset):
    """The optimizer steps of a schedule over tokenized samples, with random access.

    Args:
        store: The samples.
        content_hash: A hash of their tokens.
        schedule: The order.
        steps: Optimizer steps of the run.
        pad_id: Token id used for padding.
        shard: The part of each step that this rank computes.
    """

    def __init__(
        self,
        store: SampleStore,
        content_hash: str,
        schedule: BatchSchedule,
        *,
        steps: int,
        pad_id: int,
        shard: RankShard = SINGLE_RANK,
    ) -> None:
        self.store, self.content_hash, self.schedule = store, content_hash, schedule
        self.steps, self.pad_id, self.shard = steps, pad_id, shard

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> Step:
        concatenated = self.schedule.sequences.concatenated
        micro_batches = self.shard.select(self.schedule.step(index), [])
        return Step(self.shard.collate(self.store, sequences, self.pad_id, concatenated) for sequences in micro_batches)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the data."""
        return self.schedule.steps_per_epoch

    @property
    def batch_size(self) -> int:
        """Sequences per forward pass, per device."""
        return self.schedule.batch_size

    @property
    def sequences_per_step(self) -> int:
        """Sequences per optimizer step, over all devices."""
        return self.schedule.sequences_per_step

    def identity(self) -> str:
        """Return a hash of the tokens and their order. A run can be resumed only with the same hash."""
        schedule, sequences = self.schedule, self.schedule.sequences
        settings = (
            self.content_hash,
            sequences.concatenated,
            schedule.sequences_per_step,
            schedule.seed,
            schedule.longest_first,
        )
        digest = hashlib.blake2b(repr(settings).encode(), digest_size=16)
        digest.update(sequences.ranges.tobytes() + sequences.starts.tobytes())
        return digest.hexdigest()

    def seek(self, cursor: Cursor | None) -> None:
        """Do nothing: steps are accessed by index."""


class StreamedSteps(Dataset):
    """The optimizer steps of a stream, in order, from the position set by `seek`.

    Args:
        stream: Windows of sequences. Each rank reads the full stream.
        steps: Optimizer steps of the run.
        batch_size: Sequences per forward pass, per device.
        pad_id: Token id used for padding.
        identity: A hash of sources and settings.
        shard: The part of each step that this rank computes.
    """

    def __init__(
        self,
        stream: RowStream,
        *,
        steps: int,
        batch_size: int,
        pad_id: int,
        identity: str,
        shard: RankShard = SINGLE_RANK,
    ) -> None:
        self.stream, self.steps, self.batch_size, self.pad_id = stream, steps, batch_size, pad_id
        self.shard, self._identity = shard, identity
        self.seek(None)

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> Step:
        """Return the next step; `index` is ignored, as a stream has no random access."""
        if self._iterator is None:
            self._iterator = self._steps_from(self._cursor)
        return next(self._iterator)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of the run: a stream has no epochs."""
        return self.steps

    @property
    def sequences_per_step(self) -> int:
        """Sequences per optimizer step, over all devices."""
        return self.stream.sequences_per_step

    def identity(self) -> str:
        """Return a hash of sources and settings. A run can be resumed only with the same hash."""
        return self._identity

    def seek(self, cursor: Cursor | None) -> None:
        """Continue from `cursor`; None is the start of the stream."""
        self._cursor = cursor or Cursor(0, [0] * len(self.stream.sources))
        self._iterator: Iterator[Step] | None = None

    def _steps_from(self, cursor: Cursor) -> Iterator[Step]:
        count, first = self.sequences_per_step, cursor.step
        for window in self.stream.windows(replace(cursor, step=0)):
            for number in range(first, window.steps):
                sequences = [window.sequences[i] for i in range(number * count, (number + 1) * count)]
                step = self._collate(window.store, sequences, window.sequences.concatenated)
                is_last = number + 1 == window.steps
                step.cursor = window.next if is_last else replace(window.begin, step=number + 1)
                yield step
            first = 0
            del window  # free its memory before the next one is tokenized

    def _collate(self, store: SampleStore, sequences: list[np.ndarray], concatenated: bool) -> Step:
        """Return this rank's part of one optimizer step of `sequences`, each token ranges [n, 3]."""
        micro_batches = [sequences[i : i + self.batch_size] for i in range(0, len(sequences), self.batch_size)]
        return Step(
            self.shard.collate(store, micro_batch, self.pad_id, concatenated)
            for micro_batch in self.shard.select(micro_batches, [])
        )
