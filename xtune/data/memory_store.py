"""Tokenized samples in memory, with the interface of `TokenStore`."""

import numpy as np

from .sample import Sample


class MemoryStore:
    """The samples of one window of a stream; `lengths` [N] is in tokens."""

    def __init__(self, samples: list[Sample], places: list[str]) -> None:
        self.samples, self.places = samples, places
        self.lengths = np.array([len(sample.ids) for sample in samples], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.samples)

    def ids(self, index: int) -> np.ndarray:
        """Return the token ids [S] of a sample."""
        return self.samples[index].ids

    def spans(self, index: int) -> np.ndarray:
        """Return the trained spans [n, 2] of a sample, in token positions."""
        return np.array(self.samples[index].spans, dtype=np.int64).reshape(-1, 2)

    def place(self, index: int) -> str:
        """Return file and row number of a sample."""
        return self.places[index]
