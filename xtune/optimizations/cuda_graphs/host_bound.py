"""In which steps a GPU waits for the process that starts its kernels."""

from collections import Counter
from collections.abc import Hashable

# The share of a micro-batch that the process waits for the GPU at the end of a step, below which the GPU is taken to
# wait for the process.
LITTLE = 0.05
# Steps that must show so, one after another.
STEPS = 3


class Waits:
    """Counts them for each shape of a micro-batch."""

    def __init__(self) -> None:
        self._steps: Counter[Hashable] = Counter()
        self._seen: set[Hashable] = set()

    def begin(self) -> None:
        """Begin a step."""
        self._seen = set()

    def saw(self, shape: Hashable) -> None:
        """Take note of a micro-batch."""
        self._seen.add(shape)

    def end(self, waited: float) -> None:
        """End the step, at which the process waited for this share of a micro-batch."""
        if waited < LITTLE:
            self._steps.update(self._seen)
            return
        for shape in self._seen:
            del self._steps[shape]

    def often(self, shape: Hashable) -> bool:
        """Tell whether the GPU waited in each of the last steps that had such a micro-batch."""
        return self._steps[shape] >= STEPS
