"""The micro-batch that takes the most memory."""

from dataclasses import replace

import numpy as np
import torch

from .batches import IGNORE, MicroBatch, collate
from .build import TrainingData
from .steps import StreamedSteps


def widest(data: TrainingData) -> MicroBatch:
    """Return the longest sequences as one micro-batch of this device.

    Of a stream, which is not known to its end, those of the first window, prolonged to full length.
    """
    sequences, steps = data.train.sequences, data.steps
    longest = np.argsort(-sequences.lengths, kind='stable')[: steps.batch_size]
    batch = collate(
        data.train.store, [sequences[i] for i in longest], data.pad_id, sequences.joined, steps.share.columns
    )
    return _prolonged(batch, data) if isinstance(steps, StreamedSteps) else batch


def _prolonged(batch: MicroBatch, data: TrainingData) -> MicroBatch:
    """Return `batch` with every row repeated to full length, and as many rows as a micro-batch may have."""
    rows, width = batch.input_ids.shape
    wanted = data.max_length // data.steps.share.columns.of
    times, down = -(-wanted // width), -(-data.steps.batch_size // rows)

    def fill(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor.repeat(down, times)[: data.steps.batch_size, :wanted].contiguous()

    targets = fill(batch.targets)
    trained_at = (targets.flatten() != IGNORE).nonzero().squeeze(1)
    return replace(
        batch,
        input_ids=fill(batch.input_ids),
        position_ids=fill(batch.position_ids),
        targets=targets,
        trained=len(trained_at),
        trained_at=trained_at,
        tokens=targets.numel(),
    )
