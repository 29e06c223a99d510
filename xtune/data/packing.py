"""Packing: which samples, or pieces of samples, share a sequence. Indices only.

    lengths    [5, 3, 7, 2, 4], max_length 8                         a digit is a token of that sample
    fit        2222222. | 00000111 | 444433..                        no sample is split (best fit)
    exact      00000111 | 22222223 | 34444                           cut at max_length, pieces do not see each other
    stream     the same cuts, but a sequence is one text: its tokens see all earlier ones

Every mode holds each token exactly once and no mode loses a target: a piece's last token still predicts the token that
the next piece begins with. `fit` shows the model each reply with its whole prompt, and gives the loss of unpacked
training; `exact` fills the last few percent and tears some samples; `stream` is what pretraining scripts call concat
and cut. The result follows from the lengths and the seed alone: it knows nothing of processes, workers or devices.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sequences:
    """Training sequences as flat arrays.

    `pieces` [P, 3] are (sample, first token, end token); sequence i is `pieces[starts[i]:starts[i + 1]]`. `joined`:
    a sequence is one text, its pieces see each other.
    """

    pieces: np.ndarray
    starts: np.ndarray
    joined: bool = False

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.pieces[self.starts[index] : self.starts[index + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence."""
        return np.add.reduceat(self.pieces[:, 2] - self.pieces[:, 1], self.starts[:-1]) if len(self) else np.zeros(0)


def pack(mode: str, lengths: np.ndarray, indices: np.ndarray, max_length: int, seed: int) -> Sequences:
    """Return the sequences of the samples `indices`, whose tokens `lengths` counts; `mode` is one of the above or
    'none', one sample a sequence."""
    if mode == 'none':
        return Sequences(_whole(indices, lengths), np.arange(len(indices) + 1))
    if mode == 'fit':
        sequences = pack_fit(lengths, indices, max_length, seed)
        flat = np.fromiter((i for sequence in sequences for i in sequence), np.int64, len(indices))
        return Sequences(_whole(flat, lengths), np.cumsum([0, *map(len, sequences)]))
    return pack_exact(lengths, np.random.default_rng(seed).permutation(indices), max_length, joined=mode == 'stream')


def pack_fit(lengths: np.ndarray, indices: np.ndarray, max_length: int, seed: int) -> list[list[int]]:
    """Return lists of sample indices whose lengths sum to at most `max_length` tokens.

    Longest samples first, each into the fullest sequence it fits (best-fit decreasing, at most 22 % more bins than the
    optimum; for chat data usually under 3 %). Samples of equal length are shuffled by `seed`.
    """
    shuffled = np.random.default_rng(seed).permutation(indices)
    order = shuffled[np.argsort(-lengths[shuffled], kind='stable')]
    sequences: list[list[int]] = []
    by_room: dict[int, list[int]] = {}  # free tokens -> sequences with exactly that room
    rooms: list[int] = []  # the keys of by_room, sorted
    for index, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        at = bisect_left(rooms, length)
        if at == len(rooms):
            sequences.append([])
            target, room = len(sequences) - 1, max_length
        else:
            room = rooms[at]
            target = by_room[room].pop()
            if not by_room[room]:
                del by_room[room], rooms[at]
        sequences[target].append(index)
        left = room - length
        if left not in by_room:
            by_room[left] = []
            insort(rooms, left)
        by_room[left].append(target)
    return sequences


def pack_exact(lengths: np.ndarray, order: np.ndarray, max_length: int, joined: bool) -> Sequences:
    """Return the samples in `order` laid end to end and cut every `max_length` tokens; only the last is shorter."""
    ends = np.cumsum(lengths[order], dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.arange(max_length, total, max_length)
    # Every border of a sample and every cut begins a piece; a cut at a border begins one piece, not two.
    begins = np.union1d(np.concatenate([[0], ends[:-1]]), cuts) if total else np.zeros(0, np.int64)
    stops = np.append(begins[1:], total)[: len(begins)]
    which = np.searchsorted(ends, begins, side='right')
    offsets = np.concatenate([[0], ends[:-1]])[which] if total else begins
    pieces = np.stack([order[which], begins - offsets, stops - offsets], axis=1)
    starts = np.searchsorted(begins, np.concatenate([[0], cuts, [total]]) if total else [0])
    return Sequences(pieces, starts, joined)


def _whole(indices: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return np.stack([indices, np.zeros_like(indices), lengths[indices]], axis=1).astype(np.int64)
