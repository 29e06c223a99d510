"""Collate packed sequences into the tensors of a micro-batch.

A sequence is an array of token ranges int64 [n, 3]: (sample, first token, end token).
"""

import math
from typing import Protocol

import numpy as np
import torch

from .batches import FULL_SEQUENCE, IGNORE_INDEX, PAD_TO_LONGEST, MicroBatch, Padding, SequenceShard, segments


class SampleStore(Protocol):
    """Samples by index: token ids [S], trained spans [n, 2] in token positions, file and row number."""

    def ids(self, index: int) -> np.ndarray: ...
    def spans(self, index: int) -> np.ndarray: ...
    def place(self, index: int) -> str: ...


def collate(
    store: SampleStore,
    sequences: list[np.ndarray],
    pad_id: int,
    concatenated: bool = False,
    shard: SequenceShard = FULL_SEQUENCE,
    padding: Padding = PAD_TO_LONGEST,
) -> MicroBatch:
    """Return `shard` of the tensors of `sequences`, each token ranges [n, 3].

    An empty list gives one sequence of padding, for a rank that has run out of data while others have some left.

    `concatenated`: each sequence is one text. Positions continue across samples, and the first token of a sample is
    predicted from the sample before it.
    """
    sequences = sequences or [np.empty((0, 3), dtype=np.int64)]
    lengths = np.array([(ranges[:, 2] - ranges[:, 1]).sum() for ranges in sequences])
    multiple = math.lcm(shard.count, padding.multiple)
    seq_len = -(-max(int(lengths.max()) or 2, padding.min_length) // multiple) * multiple
    input_ids, positions, targets = _fill(store, sequences, seq_len, pad_id, concatenated)
    is_packed, is_sharded = not concatenated and any(len(ranges) > 1 for ranges in sequences), shard.count > 1
    if not is_packed:
        positions[:] = np.arange(seq_len)  # padding in a segment of its own would require a mask
    local = shard.slice(seq_len)
    targets = targets[:, local]
    target_indices = np.flatnonzero(targets != IGNORE_INDEX)
    cu_seqlens, max_seqlen = segments([_segment_starts(ranges, concatenated) for ranges in sequences], seq_len)
    with_positions = is_packed or is_sharded or padding.with_positions
    return MicroBatch(
        input_ids=torch.from_numpy(input_ids[:, local]),
        position_ids=torch.from_numpy(positions[:, local]) if with_positions else None,
        targets=torch.from_numpy(targets),
        target_indices=torch.from_numpy(target_indices),
        num_targets=len(target_indices),
        num_tokens=int((lengths.clip(local.start, local.stop) - local.start).sum()),
        places=[store.place(index) for ranges in sequences for index in ranges[:, 0].tolist()],
        cu_seqlens=cu_seqlens,
        max_seqlen=max_seqlen,
        full_position_ids=torch.from_numpy(positions) if is_sharded else None,
    )


def _fill(
    store: SampleStore, sequences: list[np.ndarray], seq_len: int, pad_id: int, concatenated: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return input ids, positions and targets, each int64 [B, S]."""
    shape = (len(sequences), seq_len)
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    targets = np.full(shape, IGNORE_INDEX, dtype=np.int64)
    for number, ranges in enumerate(sequences):
        at = 0
        for index, first, stop in ranges.tolist():
            ids, end = store.ids(index), at + stop - first
            input_ids[number, at:end] = ids[first:stop]
            positions[number, at:end] = np.arange(stop - first)
            predicts_first = concatenated and at > 0
            _fill_targets(targets[number, :end], ids, store.spans(index).tolist(), (first, stop), predicts_first)
            at = end
        positions[number, at:] = np.arange(seq_len - at)
    return input_ids, positions, targets


def _fill_targets(
    targets: np.ndarray, ids: np.ndarray, spans: list, token_range: tuple[int, int], predicts_first: bool
) -> None:
    """Write the next-token targets of `ids[first:stop]` into the end of `targets`.

    The last token of the range predicts the first token of the sample's next range, so a cut loses no target.
    `predicts_first`: the token before the sample predicts the sample's first token.
    """
    first, stop = token_range
    shift = len(targets) - stop - 1  # index in `targets` that predicts token 0
    for start, end in spans:
        low, high = max(start, first + 1), min(end, stop + (stop < len(ids)))
        if predicts_first and start <= first == 0:
            low = 0
        if low < high:
            targets[shift + low : shift + high] = ids[low:high]


def _segment_starts(ranges: np.ndarray, concatenated: bool) -> np.ndarray:
    """Return the positions in one sequence where a segment starts, and where its padding starts."""
    ends = (ranges[:, 2] - ranges[:, 1]).cumsum()
    return np.append(0, ends[-1:] if concatenated else ends)
