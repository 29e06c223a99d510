"""The dated folders that mmengine makes in the work_dir at every start, for its log and for TensorBoard.

Only those that hold something stay: log lines of the user's hooks, or figures of a tracker.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .runner import TuneRunner

_DATED = re.compile(r'\d{8}_\d{6}')


@contextmanager
def without_empty_folders(work_dir: Path, removes: bool = True) -> Iterator[None]:
    """Remove empty dated folders of killed runs before, and that of this run after it.

    Args:
        work_dir: The folder of a run, which no other run uses.
        removes: Whether this process does; of those of one run the main one does.
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
    """Remove TensorBoard's file of a run that ended before its first step: it holds a copy of the config alone."""
    try:
        yield
    finally:
        loop = runner.train_loop
        if getattr(loop, 'steps_done', 0) == getattr(loop, 'began_at', 0):
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
            with suppress(OSError):  # it holds something, or is not there
                path.rmdir()
