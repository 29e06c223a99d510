"""What every contender notes at the end of each step, in the same way; the result is one JSON line.

{"ends": [seconds since 1970, ...], "losses": [...], "gib": 12.3}
"""

import json
from pathlib import Path
from time import time


class Ticks:
    """The steps of one process.

    Args:
        path: Gets the result after the last step.
        steps: Optimizer steps of the run.
    """

    def __init__(self, path: Path, steps: int) -> None:
        self.path, self.steps = path, steps
        self.ends: list[float] = []
        self.losses: list[float] = []
        self.gib = 0.0

    def add(self, loss: float) -> bool:
        """Note the end of a step, which computed `loss`; return whether it was the last one."""
        self.ends.append(time())
        self.losses.append(loss)
        self.gib = max(self.gib, _peak())
        done = len(self.ends) >= self.steps
        if done:
            result = dict(ends=self.ends, losses=self.losses, gib=self.gib)
            part = self.path.with_suffix('.part')  # an end in between leaves no half a line
            part.write_text(json.dumps(result) + '\n', encoding='utf-8')
            part.replace(self.path)
        return done


def _peak() -> float:
    """Return the peak memory of this process in GiB: allocated on a GPU, resident on a CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
