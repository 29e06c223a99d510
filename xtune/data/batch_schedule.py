"""The order of training: optimizer step -> micro-batches -> sequences. It depends only on seed and epoch."""

from dataclasses import dataclass

import numpy as np

from .packing import Sequences


@dataclass(kw_only=True)
class BatchSchedule:
    """Assign sequences to optimizer steps.

    Args:
        sequences: The training sequences of one epoch.
        batch_size: Sequences per forward pass, per device.
        gradient_accumulation_steps: Forward passes per optimizer step, per device.
        seed: Seed of the order, together with the epoch.
        longest_first: Put the longest sequences into the first step of the run, so that out of memory shows at once.
        devices: Data-parallel ranks that share each step. The order does not depend on their number.
    """

    sequences: Sequences
    batch_size: int
    gradient_accumulation_steps: int
    seed: int
    longest_first: bool = False
    devices: int = 1

    def __post_init__(self) -> None:
        self._order: tuple[int, np.ndarray] | None = None

    @property
    def sequences_per_step(self) -> int:
        """Sequences per optimizer step, over all devices."""
        return self.batch_size * self.gradient_accumulation_steps * self.devices

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch; the last one may have fewer sequences."""
        return -(-len(self.sequences) // self.sequences_per_step)

    def step(self, index: int) -> list[list[np.ndarray]]:
        """Return the micro-batches of one optimizer step, for all devices: lists of token ranges [n, 3].

        Args:
            index: Optimizer step, counted from 0 over all epochs.
        """
        epoch, step_of_epoch = divmod(index, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, self._shuffled(epoch)
        start = step_of_epoch * self.sequences_per_step
        chosen = [self.sequences[i] for i in self._order[1][start : start + self.sequences_per_step]]
        return [chosen[i : i + self.batch_size] for i in range(0, len(chosen), self.batch_size)]

    def _shuffled(self, epoch: int) -> np.ndarray:
        """Return the order of the sequences in `epoch`, int64 [N]."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.sequences))
        if not self.longest_first or epoch:
            return order
        longest = np.argsort(-self.sequences.lengths, kind='stable')[: self.sequences_per_step]
        return np.concatenate([longest, order[~np.isin(order, longest)]])
