"""Samples of training or validation data."""

from dataclasses import dataclass
from functools import cached_property

from .collate import SampleStore
from .packing import Sequences
from .report import Report


@dataclass
class Split:
    """Training or validation data.

    Attributes:
        store: The samples.
        sequences: The samples packed into sequences.
        reports: What happened to the rows, for each source.
        repeats: How often each source is used per epoch; empty for validation data.
    """

    store: SampleStore
    sequences: Sequences
    reports: list[Report]
    repeats: list[float]

    @cached_property
    def tokens(self) -> int:
        """Tokens of all sequences."""
        return int(self.sequences.lengths.sum())

    @cached_property
    def samples(self) -> int:
        """Number of samples; repeated samples count each time."""
        return int((self.sequences.ranges[:, 1] == 0).sum())
