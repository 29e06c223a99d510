"""The packing plan: which samples share a sequence, in which order sequences are trained. Indices only.

    lengths     [5, 3, 7, 2, 4]      max_length 8
    sequences   [[2], [0, 1], [4, 3]]                 best fit: no sample is split, none is left out
    tokens      2222222. 00000111 4444 33..           position ids restart at each sample

Best fit never splits a sample, so packed and unpacked training see the same contexts and give the same loss; a stream
cut at exactly max_length fills a few percent more but tears replies from their prompts. The plan follows from the
lengths and the seed alone: it knows nothing of processes, workers or devices.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np


def pack_fit(lengths: np.ndarray, indices: np.ndarray, max_length: int, seed: int) -> list[list[int]]:
    """Return sequences: lists of sample indices whose lengths sum to at most `max_length` tokens.

    Longest samples first, each into the fullest sequence it fits (best-fit decreasing, at most 22 % more bins than the
    optimum; for chat data usually under 3 %). Samples of equal length are shuffled by `seed`.
    """
    shuffled = np.random.default_rng(seed).permutation(indices)
    order = shuffled[np.argsort(-lengths[shuffled], kind='stable')]
    sequences: list[list[int]] = []
    by_room: dict[int, list[int]] = {}  # free tokens -> sequences with exactly that room
    rooms: list[int] = []  # the keys of by_room, sorted
    for index in order.tolist():
        length = int(lengths[index])
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


@dataclass
class Plan:
    """The order of training: epoch and step -> micro-batches -> sequences -> sample indices.

    Args:
        sequences: Lists of sample indices.
        batch_size: Sequences in one forward pass.
        accumulate: Forward passes per optimizer step.
        seed: Decides the order, together with the epoch.
    """

    sequences: list[list[int]]
    batch_size: int
    accumulate: int
    seed: int

    def __post_init__(self) -> None:
        self._order: tuple[int, np.ndarray] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps; the last one of an epoch may hold fewer sequences."""
        per_step = self.batch_size * self.accumulate
        return -(-len(self.sequences) // per_step)

    def step(self, index: int) -> list[list[list[int]]]:
        """Return the micro-batches of optimizer step `index`, counted from 0 over all epochs."""
        epoch, within = divmod(index, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.random.default_rng((self.seed, epoch)).permutation(len(self.sequences))
        per_step = self.batch_size * self.accumulate
        chosen = [self.sequences[i] for i in self._order[1][within * per_step : (within + 1) * per_step]]
        return [chosen[i : i + self.batch_size] for i in range(0, len(chosen), self.batch_size)]
