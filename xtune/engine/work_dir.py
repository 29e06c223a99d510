"""The work dir of a run: access, the checkpoint to resume from, and files of earlier runs."""

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
    """Give `work_dir`, which is there from now on; of a run that is refused no empty folder stays that this made.

    Args:
        work_dir: The folder of a run.
        removes: Whether this process removes it; of those of one run the main one does.

    Raises:
        ConfigError: Nothing can be written there.
    """
    # Not `Path.exists`, which fails where it may not look.
    new = [folder for folder in (work_dir, *work_dir.parents) if removes and not os.path.exists(folder)]
    try:
        _make(work_dir)
        yield work_dir
    except BaseException:
        with suppress(OSError):  # it has files, or another process has removed it
            for folder in new:
                folder.rmdir()
        raise


def _make(work_dir: Path) -> None:
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=work_dir).close()
    except OSError as error:
        raise ConfigError(
            f'work_dir {work_dir} cannot be written to ({error.strerror}); name another with --work-dir'
        ) from error


def checkpoint_to_resume(
    work_dir: Path, resume: str | bool, rendezvous: Rendezvous | None, restarts: bool
) -> Path | None:
    """Return the checkpoint to resume from, or None for a new run; the main process looks for it.

    With `restarts`, the launcher runs one command for the first start and all later ones, so that without any
    checkpoint the run is new.

    Raises:
        CheckpointError: There is none, or none that is whole.
    """
    if not resume:
        return None
    path = None
    if rendezvous is None or rendezvous.world.is_main:
        if isinstance(resume, str):
            path = Path(resume)
            checkpoint_io.load(path)
        elif restarts and not checkpoint_io.candidates(work_dir):
            print(f'note: {work_dir} holds no checkpoint yet; the run starts anew')
        else:
            path = _newest(work_dir)
    said = str(path or '') if rendezvous is None else rendezvous.broadcast_text('resume', str(path or ''))
    return Path(said) if said else None


def _newest(work_dir: Path) -> Path:
    path, refused = _newest_whole(work_dir)
    for reason in refused:
        tqdm.write(f'warning: {reason}')
    print(f'resuming from {path}')
    return path


def archive_previous_run(work_dir: Path) -> None:
    """Move the checkpoints of an earlier run in the same folder to a dated subfolder."""
    own = checkpoint_io.candidates(work_dir)
    old = [*own, *(p.with_name(f'{p.stem}_hf') for p in own)]
    old += [work_dir / name for name in ('metrics.jsonl', 'chat_samples.jsonl', checkpoint_io.POINTER)]
    if own:
        name = time.strftime('earlier_%Y%m%d_%H%M%S')
        names = (name if n == 1 else f'{name}_{n}' for n in count(1))  # several runs may end in one second
        folder = next(work_dir / name for name in names if not (work_dir / name).exists())
        folder.mkdir()
        for path in filter(Path.exists, old):
            path.rename(folder / path.name)
        print(f'note: {work_dir} held checkpoints of an earlier run; they are now in {folder}')


def _newest_whole(work_dir: Path) -> tuple[Path, list[str]]:
    """Return the latest complete checkpoint in `work_dir`, and why later ones were skipped.

    Raises:
        CheckpointError: There is none.
    """
    refused = []
    for path in checkpoint_io.candidates(work_dir):
        try:
            checkpoint_io.load(path)
            return path, refused
        except CheckpointError as error:
            refused.append(str(error))
    why = '\n'.join(refused) if refused else f'{work_dir} holds no .pth file'
    raise CheckpointError(f'there is no checkpoint to resume from: {why}')
