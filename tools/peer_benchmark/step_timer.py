"""Records the end of each optimizer step, identically for every contender. The result is one line of JSON:

{"ends": [seconds since 1970, ...], "losses": [...], "gib": 12.3}
"""

import json
from pathlib import Path
from time import time


class StepTimer:
    """The times, losses and peak memory of the steps of this process.

    Args:
        path: The result file, written after the last step.
        steps: Number of optimizer steps of the run.
    """

    def __init__(self, path: Path, steps: int) -> None:
        self.path, self.steps = path, steps
        self.ends: list[float] = []
        self.losses: list[float] = []
        self.gib = 0.0

    def add(self, loss: float) -> bool:
        """Record the end of a step with its `loss`; return whether it was the last one."""
        self.ends.append(time())
        self.losses.append(loss)
        self.gib = max(self.gib, _peak_gib())
        done = len(self.ends) >= self.steps
        if done:
            result = dict(ends=self.ends, losses=self.losses, gib=self.gib)
            unfinished = self.path.with_suffix('.part')  # renamed, so that the result file is always complete
            unfinished.write_text(json.dumps(result) + '\n', encoding='utf-8')
            unfinished.replace(self.path)
        return done


def _peak_gib() -> float:
    """Return the peak memory of this process in GiB: allocated on a GPU, resident on a CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
