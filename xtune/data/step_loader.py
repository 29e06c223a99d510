"""A DataLoader of optimizer steps."""

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from .steps import ScheduledSteps, Step, StreamedSteps


class StepSampler:
    """Optimizer steps in order, from `start` on: a batch sampler with one step per batch.

    `batch_size` is the number of sequences per device and forward pass; mmengine's strategies read it.
    """

    def __init__(self, steps: int, batch_size: int) -> None:
        self.steps, self.batch_size, self.start = steps, batch_size, 0

    def __iter__(self) -> Iterator[list[int]]:
        return ([step] for step in range(self.start, self.steps))

    def __len__(self) -> int:
        return self.steps


def step_loader(dataset: ScheduledSteps | StreamedSteps, num_workers: int) -> DataLoader:
    """Return a loader of the optimizer steps of `dataset`, in order. A stream uses one worker at most."""
    return DataLoader(
        dataset,
        batch_sampler=StepSampler(len(dataset), dataset.batch_size),
        num_workers=min(num_workers, 1) if isinstance(dataset, StreamedSteps) else num_workers,
        collate_fn=_only_step,
        # Its own generator: the loader draws a seed when it starts, which would shift the dropout of a resumed run.
        generator=torch.Generator(),
    )


def _only_step(steps: list[Step]) -> Step:
    return steps[0]
