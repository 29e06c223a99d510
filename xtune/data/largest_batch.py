"""The micro-batch that needs the most memory, for measuring before the first step."""

import numpy as np

from .batches import MicroBatch
from .steps import StreamedSteps
from .training_data import TrainingData


def largest_batch(data: TrainingData) -> MicroBatch:
    """Return the longest sequences as one micro-batch of this rank.

    A stream is not known to its end: there the sequences of the first window are repeated up to `max_length` tokens.
    """
    sequences, steps = data.train.sequences, data.steps
    longest = np.argsort(-sequences.lengths, kind='stable')[: steps.batch_size]
    chosen = [sequences[i] for i in longest]
    if isinstance(steps, StreamedSteps):
        chosen = [_repeated(chosen[i % len(chosen)], data.max_length) for i in range(steps.batch_size)]
    return steps.shard.collate(data.train.store, chosen, data.pad_id, sequences.concatenated)


def _repeated(ranges: np.ndarray, length: int) -> np.ndarray:
    """Return the token ranges [n, 3] repeated and cut to `length` tokens in total."""
    tokens = (ranges[:, 2] - ranges[:, 1]).sum()
    repeated = np.tile(ranges, (-(-length // tokens), 1))
    ends = np.cumsum(repeated[:, 2] - repeated[:, 1])
    repeated = repeated[: np.searchsorted(ends, length) + 1].copy()
    repeated[-1, 2] -= ends[len(repeated) - 1] - length
    return repeated
