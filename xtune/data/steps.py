"""Optimizer steps as a data set: item i is the micro-batches of step i, from a plan or from a stream."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from .batch_schedule import BatchSchedule
from .batches import CLOSE, EVERY_COLUMN, Columns, MicroBatch, Padding, Store, collate
from .stream import Cursor, RowStream

Group = TypeVar('Group')


@dataclass(frozen=True)
class Share:
    """Which micro-batches of a step are this device's: every `of`-th, from number `rank` on, and of them `columns`.
    Their rows are filled up by `padding`."""

    rank: int = 0
    of: int = 1
    columns: Columns = EVERY_COLUMN
    padding: Padding = CLOSE

    @classmethod
    def of_device(cls, rank: int, devices: int, parts: int, padding: Padding = CLOSE) -> 'Share':
        """Return the share of device `rank`, where `parts` neighbouring devices split each row."""
        return cls(rank // parts, devices // parts, Columns(rank % parts, parts), padding)

    def pick(self, groups: list[Group], blank: Group) -> list[Group]:
        """Return this device's part of `groups`; all devices get equally many, where there are too few a `blank`."""
        rounds = -(-len(groups) // self.of)
        return (groups + [blank] * (rounds * self.of - len(groups)))[self.rank :: self.of]

    def collate(self, store: Store, sequences: list[np.ndarray], pad_id: int, joined: bool) -> MicroBatch:
        """Return this device's columns of one of its micro-batches."""
        return collate(store, sequences, pad_id, joined, self.columns, self.padding)


WHOLE = Share()  # one device takes all


class Step(list[MicroBatch]):
    """The micro-batches of one device in one optimizer step. `cursor` is where a stream stands after it."""

    cursor: Cursor | None = None

    def pinned(self) -> 'Step':
        """Return the step in pinned memory: copies from there to a GPU do not wait for what it computes."""
        step = Step(batch.pinned() for batch in self)
        step.cursor = self.cursor
        return step


class PlannedSteps(Dataset):
    """The steps of a plan over tokenised samples; any step can be asked for at any time.

    Args:
        store: The samples.
        content: A hash of their tokens.
        plan: The order.
        steps: Optimizer steps of the run.
        pad_id: Fills rows up.
        share: Which micro-batches this device takes.
    """

    def __init__(
        self, store: Store, content: str, plan: BatchSchedule, steps: int, pad_id: int, share: Share = WHOLE
    ) -> None:
        self.store, self.content, self.plan, self.steps, self.pad_id = store, content, plan, steps, pad_id
        self.share = share

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> Step:
        joined = self.plan.sequences.joined
        groups = self.share.pick(self.plan.step(index), [])
        return Step(self.share.collate(self.store, sequences, self.pad_id, joined) for sequences in groups)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the data."""
        return self.plan.steps_per_epoch

    @property
    def batch_size(self) -> int:
        """Sequences in one forward pass of a device."""
        return self.plan.batch_size

    @property
    def per_step(self) -> int:
        """Sequences in one optimizer step, on all devices together."""
        return self.plan.per_step

    def identity(self) -> str:
        """Return a hash of the tokens and their order: what must be the same for a resumed run to go on."""
        plan, sequences = self.plan, self.plan.sequences
        settings = (self.content, sequences.joined, plan.per_step, plan.seed, plan.longest_first)
        digest = hashlib.blake2b(repr(settings).encode(), digest_size=16)
        digest.update(sequences.pieces.tobytes() + sequences.starts.tobytes())
        return digest.hexdigest()

    def start(self, cursor: Cursor | None) -> None:
        """Do nothing: a plan has no state."""


class StreamedSteps(Dataset):
    """The steps of a stream, in order, from where `start` puts it.

    Args:
        stream: Windows of sequences.
        steps: Optimizer steps of the run.
        batch_size: Sequences in one forward pass of a device.
        pad_id: Fills rows up.
        identity: A hash of sources and settings.
        share: Which micro-batches this device takes. Each device reads the whole stream.
    """

    def __init__(
        self, stream: RowStream, steps: int, batch_size: int, pad_id: int, identity: str, share: Share = WHOLE
    ) -> None:
        self.share = share
        self.stream, self.steps, self.batch_size, self.pad_id = stream, steps, batch_size, pad_id
        self._identity = identity
        self.start(None)

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> Step:
        if self._steps is None:
            self._steps = self._from(self._cursor)
        return next(self._steps)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of the run: a stream has no epochs."""
        return self.steps

    @property
    def per_step(self) -> int:
        """Sequences in one optimizer step, on all devices together."""
        return self.stream.per_step

    def identity(self) -> str:
        """Return a hash of sources and settings: what must be the same for a resumed run to go on."""
        return self._identity

    def start(self, cursor: Cursor | None) -> None:
        """Stand where `cursor` says; None is the begin."""
        self._cursor = cursor or Cursor(0, [0] * len(self.stream.sources))
        self._steps: Iterator[Step] | None = None

    def _from(self, cursor: Cursor) -> Iterator[Step]:
        per_step, first = self.stream.per_step, cursor.step
        for window in self.stream.windows(replace(cursor, step=0)):
            for number in range(first, window.steps):
                chosen = [window.sequences[i] for i in range(number * per_step, (number + 1) * per_step)]
                groups = [chosen[i : i + self.batch_size] for i in range(0, per_step, self.batch_size)]
                mine = self.share.pick(groups, [])
                joined = window.sequences.joined
                step = Step(self.share.collate(window.store, group, self.pad_id, joined) for group in mine)
                ends = number + 1 == window.steps
                step.cursor = window.next if ends else replace(window.begin, step=number + 1)
                yield step
            first = 0
            del window  # before the next one is made


class StepSampler:
    """Optimizer steps in order, from `start` on: a batch sampler whose batches are one step each.

    `batch_size` is the number of sequences per device in one forward pass; mmengine's strategies ask for it.
    """

    def __init__(self, steps: int, batch_size: int) -> None:
        self.steps, self.batch_size, self.start = steps, batch_size, 0

    def __iter__(self) -> Iterator[list[int]]:
        return ([step] for step in range(self.start, self.steps))

    def __len__(self) -> int:
        return self.steps


def step_loader(dataset: PlannedSteps | StreamedSteps, num_workers: int) -> DataLoader:
    """Return a loader of the steps of `dataset`, in order. A stream is read by one process at most."""
    return DataLoader(
        dataset,
        batch_sampler=StepSampler(len(dataset), dataset.batch_size),
        num_workers=min(num_workers, 1) if isinstance(dataset, StreamedSteps) else num_workers,
        collate_fn=_single,
        # Its own generator: the loader draws a seed at its start, which would shift the dropout of a resumed run.
        generator=torch.Generator(),
    )


def _single(steps: list[Step]) -> Step:
    return steps[0]
