"""Sequences of the plan -> tensors.

Legend: B sequences, S tokens of the longest of them.

    input_ids_BS     token ids, padded at the end
    position_ids_BS  restart at 0 for every sample, so that packed samples do not see each other; only if packed
    targets_BS       the next token of the sample where it is trained, else -100

No attention mask is needed: attention is causal and padding stands at the end, in a segment of its own.

    borders_C        where segments begin among all B * S tokens, then B * S at least once

Where several devices split each row, each gets its columns of these three, and position_ids and the positions of whole
rows (`row_positions`, [B, S]) are always there.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

IGNORE = -100


class Store(Protocol):
    """Samples by index: token ids [S], trained spans [n, 2] in token positions, and where a person finds the row."""

    def ids(self, index: int) -> np.ndarray: ...
    def spans(self, index: int) -> np.ndarray: ...
    def place(self, index: int) -> str: ...


@dataclass(frozen=True)
class Columns:
    """Which columns of every row are this device's: part number `part` of `of` equal ones."""

    part: int = 0
    of: int = 1

    def slice(self, width: int) -> slice:
        """Return the columns of rows of `width`, which is a multiple of `of`."""
        each = width // self.of
        return slice(self.part * each, (self.part + 1) * each)


EVERY_COLUMN = Columns()


@dataclass(frozen=True)
class Padding:
    """How wide rows are: `width` at least, and a multiple of `multiple`. `fixed`: position_ids are always there."""

    width: int = 1
    multiple: int = 1
    fixed: bool = False


# As wide as the longest row.
CLOSE = Padding()
# Rows that are not packed are filled up to a multiple of this when layers are compiled.
MULTIPLE = 64
# Fewest segments that borders are made for, so that most batches have borders of one shape.
SEGMENTS = 16


@dataclass
class MicroBatch:
    """Tensors of one forward pass, and the places of the rows they come from. `trained` counts targets other than
    -100, `tokens` what is not padding, both in the columns of this device. `trained_at` [trained] are the places of
    those targets among all, so that no GPU is asked for them. `borders` are of whole rows, whose longest segment has
    `longest` tokens at most; both are rounded up to powers of two, by empty segments at the end."""

    input_ids: torch.Tensor
    position_ids: torch.Tensor | None
    targets: torch.Tensor
    trained: int
    tokens: int
    places: list[str]
    trained_at: torch.Tensor
    borders: torch.Tensor
    longest: int
    row_positions: torch.Tensor | None = None

    @classmethod
    def of_rows(cls, input_ids: torch.Tensor, targets: torch.Tensor) -> 'MicroBatch':
        """Return a batch of rows [B, S] of one sample each; `targets` [B, S] are -100 where nothing is trained."""
        rows, width = input_ids.shape
        trained_at = (targets.flatten() != IGNORE).nonzero().squeeze(1)
        whole = [np.array([[row, 0, width]]) for row in range(rows)]
        segments = _segments(whole, width, joined=False)
        return cls(input_ids, None, targets, len(trained_at), input_ids.numel(), [], trained_at, *segments)

    def to(self, device: torch.device) -> 'MicroBatch':
        """Return the batch on `device`."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> 'MicroBatch':
        """Return the batch in pinned memory."""
        return self._with(torch.Tensor.pin_memory)

    def _with(self, function: Callable[[torch.Tensor], torch.Tensor]) -> 'MicroBatch':
        return replace(self, **{name: function(t) for name, t in vars(self).items() if torch.is_tensor(t)})


def collate(
    store: Store,
    sequences: list[np.ndarray],
    pad_id: int,
    joined: bool = False,
    columns: Columns = EVERY_COLUMN,
    padding: Padding = CLOSE,
) -> MicroBatch:
    """Return the `columns` of the tensors of `sequences`, each pieces [n, 3] of (sample, first token, end token).

    Without sequences it is a row of padding, for a device that has nothing to do while others have.

    `joined` sequences are one text each: positions run on and the first token of a sample is predicted too.
    """
    sequences = sequences or [np.empty((0, 3), dtype=np.int64)]
    lengths = np.array([(pieces[:, 2] - pieces[:, 1]).sum() for pieces in sequences])
    unit = math.lcm(columns.of, padding.multiple)
    width = -(-max(int(lengths.max()) or 2, padding.width) // unit) * unit
    shape = (len(sequences), width)
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    targets = np.full(shape, IGNORE, dtype=np.int64)
    for row, pieces in enumerate(sequences):
        at = 0
        for index, first, stop in pieces.tolist():
            ids, end = store.ids(index), at + stop - first
            input_ids[row, at:end] = ids[first:stop]
            positions[row, at:end] = np.arange(stop - first)
            _write_targets(targets[row], ids, store.spans(index).tolist(), first, stop, at, joined)
            at = end
        positions[row, at:] = np.arange(width - at)
    several, split = not joined and any(len(pieces) > 1 for pieces in sequences), columns.of > 1
    if not several:
        positions[:] = np.arange(width)  # padding in a segment of its own would cost a mask
    given = several or split or padding.fixed
    own = columns.slice(width)
    targets = targets[:, own]
    return MicroBatch(
        torch.from_numpy(input_ids[:, own]),
        torch.from_numpy(positions[:, own]) if given else None,
        torch.from_numpy(targets),
        int((targets != IGNORE).sum()),
        int((lengths.clip(own.start, own.stop) - own.start).sum()),
        [store.place(index) for pieces in sequences for index in pieces[:, 0].tolist()],
        torch.from_numpy(np.flatnonzero(targets != IGNORE)),
        *_segments(sequences, width, joined),
        torch.from_numpy(positions) if split else None,
    )


def _segments(sequences: list[np.ndarray], width: int, joined: bool) -> tuple[torch.Tensor, int]:
    """Return the borders int32 [C] of what sees itself only, in rows of `width` laid end to end, and the longest."""
    starts = []
    for row, pieces in enumerate(sequences):
        ends = (pieces[:, 2] - pieces[:, 1]).cumsum()
        starts.append(row * width + (np.append(0, ends[-1:]) if joined else np.append(0, ends)))
    total = len(sequences) * width
    borders = np.unique(np.append(np.concatenate(starts), total))
    longest = min(_power_of_two(int(np.diff(borders).max())), width)
    count = max(_power_of_two(len(borders) - 1), SEGMENTS)
    filled = np.full(count + 1, total, dtype=np.int32)
    filled[: len(borders)] = borders
    return torch.from_numpy(filled), longest


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _write_targets(row: np.ndarray, ids: np.ndarray, spans: list, first: int, stop: int, at: int, joined: bool) -> None:
    """Write into `row` what the tokens `ids[first:stop]`, which stand from `at` on, predict: the token after each.

    The last of them predicts the token that the next piece of the sample begins with, so a cut loses no target.
    """
    shift = at - first - 1  # where the token before token 0 stands
    for start, end in spans:
        low, high = max(start, first + 1), min(end, stop + (stop < len(ids)))
        if joined and at and start <= first == 0:
            low = 0  # the token before this sample predicts its first one
        if low < high:
            row[shift + low : shift + high] = ids[low:high]
