"""The work dir of a run: its creation, the checkpoint to resume from, and files of earlier runs."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile

from tqdm import tqdm

from ..errors import CheckpointError, ConfigError
from ..parallel.rendezvous import Rendezvous
from . import checkpoint_io


@contextmanager
def create_work_dir(work_dir: Path, removes: bool = True) -> Iterator[Path]:
    """Create `work_dir` and yield it; if the block raises, remove the empty folders that this call created.

    Args:
        work_dir: The folder of a run.
        removes: Whether this rank removes them; True on rank 0.

    Raises:
        ConfigError: The folder cannot be created or written to.
    """
    # Not `Path.exists`, which raises PermissionError for some folders.
    created = [folder for folder in (work_dir, *work_dir.parents) if removes and not os.path.exists(folder)]
    try:
        _make(work_dir)
        yield work_dir
    except BaseException:
        with suppress(OSError):  # not empty, or already removed
            for folder in created:
                folder.rmdir()
        raise


def _make(work_dir: Path) -> None:
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=work_dir).close()
    except OSError as error:
        raise ConfigError(
            f'work_dir {work_dir} cannot be written to ({error.strerror}); choose another with --work-dir'
        ) from error


def checkpoint_to_resume(
    work_dir: Path, resume: str | bool, rendezvous: Rendezvous | None, restarts: bool
) -> Path | None:
    """Return the checkpoint to resume from; None for a new run. Rank 0 searches for all ranks.

    Args:
        work_dir: The folder of the run.
        resume: A path, True for the latest complete checkpoint in `work_dir`, False for a new run.
        rendezvous: Of the ranks; None: there is one.
        restarts: Whether the launcher restarted the run. It uses the same command for the first start and all
            restarts, so without any checkpoint the run is a new one.

    Raises:
        CheckpointError: There is no checkpoint, or no complete one.
    """
    if not resume:
        return None
    path = None
    if rendezvous is None or rendezvous.world.is_main:
        if isinstance(resume, str):
            path = Path(resume)
            checkpoint_io.load(path)
        elif restarts and not checkpoint_io.candidates(work_dir):
            print(f'note: {work_dir} contains no checkpoint yet; starting from step 0')
        else:
            path = _newest(work_dir)
    text = str(path or '') if rendezvous is None else rendezvous.broadcast_text('resume', str(path or ''))
    return Path(text) if text else None


def _newest(work_dir: Path) -> Path:
    path, reasons = _newest_complete(work_dir)
    for reason in reasons:
        tqdm.write(f'warning: {reason}')
    print(f'resuming from {path}')
    return path


def archive_previous_run(work_dir: Path) -> None:
    """Move the checkpoints and metrics of an earlier run in the same folder to a dated subfolder."""
    checkpoints = checkpoint_io.candidates(work_dir)
    old_files = [*checkpoints, *(p.with_name(f'{p.stem}_hf') for p in checkpoints)]
    old_files += [work_dir / name for name in ('metrics.jsonl', 'chat_samples.jsonl', checkpoint_io.POINTER)]
    if checkpoints:
        name = time.strftime('earlier_%Y%m%d_%H%M%S')
        names = (name if n == 1 else f'{name}_{n}' for n in count(1))  # several runs may start in one second
        folder = next(work_dir / name for name in names if not (work_dir / name).exists())
        folder.mkdir()
        for path in filter(Path.exists, old_files):
            path.rename(folder / path.name)
        print(f'note: moved the checkpoints of an earlier run in {work_dir} to {folder}')


def _newest_complete(work_dir: Path) -> tuple[Path, list[str]]:
    """Return the latest complete checkpoint in `work_dir`, and the reasons why later ones were skipped.

    Raises:
        CheckpointError: There is none.
    """
    reasons = []
    for path in checkpoint_io.candidates(work_dir):
        try:
            checkpoint_io.load(path)
            return path, reasons
        except CheckpointError as error:
            reasons.append(str(error))
    details = '\n'.join(reasons) if reasons else f'{work_dir} contains no .pth file'
    raise CheckpointError(f'no checkpoint to resume from: {details}')
