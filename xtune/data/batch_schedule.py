"""The order of training: epoch and step -> micro-batches -> sequences. It follows from the seed and the epoch alone."""

from dataclasses import dataclass

import numpy as np

from .packing import Sequences


@dataclass
class BatchSchedule:
    """Which sequences each optimizer step trains on.

    Args:
        sequences: What there is to train on.
        batch_size: Sequences in one forward pass of one device.
        accumulate: Forward passes of a device per optimizer step.
        seed: Decides the order, together with the epoch.
        longest_first: The first step of all takes the longest sequences, so that one that does not fit into memory
            ends the run at its start.
        devices: Devices that share each step. The order is the same for any number of them.
    """

    sequences: Sequences
    batch_size: int
    accumulate: int
    seed: int
    longest_first: bool = False
    devices: int = 1

    def __post_init__(self) -> None:
        self._order: tuple[int, np.ndarray] | None = None

    @property
    def per_step(self) -> int:
        """Sequences in one optimizer step, on all devices together."""
        return self.batch_size * self.accumulate * self.devices

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps; the last one of an epoch may hold fewer sequences."""
        return -(-len(self.sequences) // self.per_step)

    def step(self, index: int) -> list[list[np.ndarray]]:
        """Return the micro-batches of optimizer step `index`, those of all devices: lists of pieces [n, 3].

        Steps count from 0 over all epochs.
        """
        epoch, within = divmod(index, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, self._shuffled(epoch)
        chosen = [self.sequences[i] for i in self._order[1][within * self.per_step : (within + 1) * self.per_step]]
        return [chosen[i : i + self.batch_size] for i in range(0, len(chosen), self.batch_size)]

    def _shuffled(self, epoch: int) -> np.ndarray:
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.sequences))
        if not self.longest_first or epoch:
            return order
        longest = np.argsort(-self.sequences.lengths, kind='stable')[: self.per_step]
        return np.concatenate([longest, order[~np.isin(order, longest)]])
