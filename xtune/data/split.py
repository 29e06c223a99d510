"""The samples of one purpose."""

from dataclasses import dataclass
from functools import cached_property

from .batches import Store
from .packing import Sequences
from .report import Report


@dataclass
class Split:
    """Samples of one purpose, as training sequences, and what happened to the rows of each source.

    `used` says how often each source is used in an epoch.
    """

    store: Store
    sequences: Sequences
    reports: list[Report]
    used: list[float]

    @cached_property
    def tokens(self) -> int:
        """Tokens of all sequences."""
        return int(self.sequences.lengths.sum())

    @cached_property
    def samples(self) -> int:
        """How many samples there are, those used again counted again."""
        return int((self.sequences.pieces[:, 1] == 0).sum())
