"""What is said when another process of the run is gone, or does not come."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

from ..errors import XtuneError
from .launch import AFTERMATH


class LostProcess(XtuneError):
    """A process of the run did not answer."""


@contextmanager
def report_timeouts(timeout: float, folder: Path) -> Iterator[None]:
    """Say what it means when a collective fails in the block.

    Args:
        timeout: Seconds that collectives wait.
        folder: Where stacks are written.

    Raises:
        LostProcess: Another process ended, or did not come within `timeout`.
    """
    try:
        yield
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        if any(text in first for text in AFTERMATH):
            raise LostProcess(
                f'lost contact with another process, which has ended; see its output ({first})'
            ) from error
        if 'imed out' in first or 'imeout' in first:
            raise LostProcess(
                f'rank {dist.get_rank()} waited {timeout:.0f} s for the other processes in a step (strategy.timeout); '
                f'where each of them stood is in {folder}/stacks_rank_*.txt. Go on from the last '
                f'checkpoint with --resume ({first})'
            ) from error
        raise
