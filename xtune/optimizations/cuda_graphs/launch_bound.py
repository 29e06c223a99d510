"""Detects launch-bound steps, per input shape: the GPU waits for the process that launches its kernels."""

from collections import Counter
from collections.abc import Hashable

# A step is launch-bound if at its end the process waits for the GPU for less than this share of a micro-batch's time.
MAX_WAIT_SHARE = 0.05
# Consecutive steps with a shape that must be launch-bound.
STEPS = 3


class LaunchBoundDetector:
    """Counts launch-bound steps for each shape of a micro-batch."""

    def __init__(self) -> None:
        self._launch_bound_steps: Counter[Hashable] = Counter()
        self._shapes_of_step: set[Hashable] = set()

    def begin_step(self) -> None:
        """Begin an optimizer step."""
        self._shapes_of_step = set()

    def add_micro_batch(self, shape: Hashable) -> None:
        """Note the shape of a micro-batch of this step."""
        self._shapes_of_step.add(shape)

    def end_step(self, wait_share: float) -> None:
        """End a step at whose end the process waited for the GPU for this share of a micro-batch's time."""
        if wait_share < MAX_WAIT_SHARE:
            self._launch_bound_steps.update(self._shapes_of_step)
            return
        for shape in self._shapes_of_step:
            del self._launch_bound_steps[shape]

    def is_launch_bound(self, shape: Hashable) -> bool:
        """Return whether each of the last `STEPS` steps with such a micro-batch was launch-bound."""
        return self._launch_bound_steps[shape] >= STEPS
