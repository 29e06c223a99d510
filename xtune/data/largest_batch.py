"""The micro-batch that takes the most memory."""

import numpy as np

from .batches import MicroBatch
from .build import TrainingData
from .steps import StreamedSteps


def largest_batch(data: TrainingData) -> MicroBatch:
    """Return the longest sequences as one micro-batch of this device.

    Of a stream, which is not known to its end, those of the first window, prolonged to full length.
    """
    sequences, steps = data.train.sequences, data.steps
    longest = np.argsort(-sequences.lengths, kind='stable')[: steps.batch_size]
    rows = [sequences[i] for i in longest]
    if isinstance(steps, StreamedSteps):
        rows = [_repeated(rows[i % len(rows)], data.max_length) for i in range(steps.batch_size)]
    return steps.share.collate(data.train.store, rows, data.pad_id, sequences.joined)


def _repeated(pieces: np.ndarray, length: int) -> np.ndarray:
    """Return `pieces` [n, 3] again and again, `length` tokens in all."""
    each = (pieces[:, 2] - pieces[:, 1]).sum()
    many = np.tile(pieces, (-(-length // each), 1))
    stops = np.cumsum(many[:, 2] - many[:, 1])
    many = many[: np.searchsorted(stops, length) + 1].copy()
    many[-1, 2] -= stops[len(many) - 1] - length
    return many
