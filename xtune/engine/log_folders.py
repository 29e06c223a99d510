"""The dated folders that mmengine creates in the work dir at every start, for its log and for TensorBoard.

Only folders with content are kept: log lines of the user's hooks, or metrics of a tracker.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .runner import TuneRunner

_DATED = re.compile(r'\d{8}_\d{6}')


@contextmanager
def without_empty_folders(work_dir: Path, removes: bool = True) -> Iterator[None]:
    """Remove empty dated folders: before the block those of killed runs, after it that of this run.

    Args:
        work_dir: The locked folder of the run.
        removes: Whether this rank removes them; True on rank 0.
    """
    if removes:
        _remove_empty(work_dir)
    try:
        yield
    finally:
        if removes:
            _remove_empty(work_dir)


@contextmanager
def without_empty_logs(runner: TuneRunner) -> Iterator[None]:
    """Remove the TensorBoard file of a run that ended before its first step: it only contains a copy of the config."""
    try:
        yield
    finally:
        loop = runner.train_loop
        if getattr(loop, 'steps_done', 0) == getattr(loop, 'start_step', 0):
            runner.visualizer.close()
            for path in Path(runner.log_dir).glob('vis_data/events.out.tfevents.*'):
                path.unlink(missing_ok=True)


def _remove_empty(work_dir: Path) -> None:
    for folder in work_dir.iterdir():
        if not _DATED.fullmatch(folder.name) or not folder.is_dir():
            continue
        log = folder / f'{folder.name}.log'
        if log.is_file() and not log.stat().st_size:
            log.unlink()
        for path in (folder / 'vis_data', folder):
            with suppress(OSError):  # it is not empty, or does not exist
                path.rmdir()
