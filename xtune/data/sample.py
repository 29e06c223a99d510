"""A tokenized sample."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..templates.template import Span


@dataclass
class Sample:
    """Token ids and their assistant messages.

    Attributes:
        ids: Token ids int32 [S].
        turns: Span [start, end) of each assistant message including its stop token, in token positions.
        trained: For each of `turns`, whether it gets a loss.
    """

    ids: np.ndarray
    turns: list[Span]
    trained: list[bool]

    @cached_property
    def spans(self) -> list[Span]:
        """The spans that get a loss."""
        return [span for span, is_trained in zip(self.turns, self.trained, strict=True) if is_trained]
