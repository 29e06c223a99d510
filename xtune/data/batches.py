"""Sequences of the plan -> tensors.

Legend: B sequences, S tokens of the longest of them.

    input_ids_BS     token ids, padded at the end
    position_ids_BS  restart at 0 for every sample, so that packed samples do not see each other; only if packed
    targets_BS       the next token where it is trained and in the same sample, else -100

No attention mask is needed: attention is causal and padding stands at the end, in a segment of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from .packing import Plan
from .store import TokenStore

IGNORE = -100


@dataclass
class MicroBatch:
    """Tensors of one forward pass, and the samples they come from. `trained` counts targets other than -100,
    `tokens` what is not padding."""

    input_ids: torch.Tensor
    position_ids: torch.Tensor | None
    targets: torch.Tensor
    trained: int
    tokens: int
    samples: list[int]

    def to(self, device: torch.device) -> 'MicroBatch':
        """Return the batch on `device`."""
        moved = (None if t is None else t.to(device, non_blocking=True) for t in self._tensors())
        return MicroBatch(*moved, self.trained, self.tokens, self.samples)

    def _tensors(self) -> tuple:
        return self.input_ids, self.position_ids, self.targets


def collate(store: TokenStore, sequences: list[list[int]], pad_id: int) -> MicroBatch:
    """Return the tensors of `sequences` (lists of sample indices)."""
    width = max(int(sum(store.lengths[i] for i in sequence)) for sequence in sequences)
    shape = (len(sequences), width)
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    targets = np.full(shape, IGNORE, dtype=np.int64)
    for row, sequence in enumerate(sequences):
        at = 0
        for index in sequence:
            ids = store.ids(index)
            end = at + len(ids)
            input_ids[row, at:end] = ids
            positions[row, at:end] = np.arange(len(ids))
            for start, stop in store.spans(index):
                first = max(int(start), 1)  # nothing predicts the first token of a sample
                targets[row, at + first - 1 : at + stop - 1] = ids[first:stop]
            at = end
        positions[row, at:] = np.arange(width - at)
    packed = any(len(sequence) > 1 for sequence in sequences)
    return MicroBatch(
        torch.from_numpy(input_ids),
        torch.from_numpy(positions) if packed else None,
        torch.from_numpy(targets),
        int((targets != IGNORE).sum()),
        sum(int(store.lengths[i]) for sequence in sequences for i in sequence),
        [index for sequence in sequences for index in sequence],
    )


class StepDataset(Dataset):
    """Item i is optimizer step i: the list of its micro-batches."""

    def __init__(self, store: TokenStore, plan: Plan, steps: int, pad_id: int) -> None:
        self.store, self.plan, self.steps, self.pad_id = store, plan, steps, pad_id

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> list[MicroBatch]:
        return [collate(self.store, sequences, self.pad_id) for sequences in self.plan.step(index)]


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


def step_loader(dataset: StepDataset, num_workers: int) -> DataLoader:
    """Return a loader of the steps of `dataset`, in order."""
    return DataLoader(
        dataset,
        batch_sampler=StepSampler(len(dataset), dataset.plan.batch_size),
        num_workers=num_workers,
        collate_fn=_single,
        # Its own generator: the loader draws a seed at its start, which would shift the dropout of a resumed run.
        generator=torch.Generator(),
    )


def _single(steps: list[list[MicroBatch]]) -> list[MicroBatch]:
    return steps[0]
