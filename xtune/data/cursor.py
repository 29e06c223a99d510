"""The position of a stream, as checkpoints store it."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Cursor:
    """A position in a stream: optimizer step `step` of window `number`.

    Attributes:
        number: The window, from 0.
        rows: Per source, the row at which the window starts.
        step: Optimizer step within the window.
        samples: Samples of the remainder of the previous window: (token ids, trained spans, place).
        sequences: Sequences of that remainder, as token ranges [n, 3] of `samples`.
    """

    number: int
    rows: list[int]
    step: int = 0
    samples: list[tuple[list[int], list[list[int]], str]] = field(default_factory=list)
    sequences: list[list[list[int]]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        return dict(vars(self))
