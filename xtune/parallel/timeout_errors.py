"""Turns failed collectives into errors that tell a user what happened on which rank."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

from ..errors import XtuneError
from .launch import AFTERMATH


class LostRank(XtuneError):
    """A rank of the run ended, or did not answer in time."""


@contextmanager
def report_timeouts(timeout: float, folder: Path) -> Iterator[None]:
    """Explain the failure of a collective in the block.

    Args:
        timeout: Timeout of collectives in seconds.
        folder: Where the watchdog dumps stacks.

    Raises:
        LostRank: Another rank ended, or did not join a collective within `timeout`.
    """
    try:
        yield
    except RuntimeError as error:
        line = str(error).splitlines()[0]
        if any(text in line for text in AFTERMATH):
            raise LostRank(f'lost contact with another rank, which has ended; see its output ({line})') from error
        if 'imed out' in line or 'imeout' in line:
            raise LostRank(
                f'rank {dist.get_rank()} timed out after {timeout:.0f} s in a collective (strategy.timeout); stack '
                f'traces of all ranks: {folder}/stacks_rank_*.txt. Resume from the latest checkpoint with --resume '
                f'({line})'
            ) from error
        raise
