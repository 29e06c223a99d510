"""Write checkpoints: to a staging path, verified by reading, and renamed once every rank has written its part."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ..errors import CheckpointError
from ..parallel.collectives import all_reduce_counts, raise_on_all_ranks, rank, world_size
from .checkpoint_io import part_name, remove_path


class PendingCheckpoint:
    """A checkpoint on its way to the disk; `path` is either whole or not there. Every process makes the same calls.

    Args:
        content: What this process writes; None: nothing.
        path: The whole checkpoint.
        split: It is a folder with a part from every process.
        background: Write while the caller goes on, who must not change `content`.

    Raises:
        CheckpointError: There is no place for it.
    """

    def __init__(self, content: dict[str, Any] | None, path: Path, split: bool = False, background: bool = False):
        self.path, self._aside, self.background = path, path.with_name(f'.{path.name}.tmp'), background
        self._error: CheckpointError | None = None
        self._thread: threading.Thread | None = None
        with raise_on_all_ranks():
            if rank() == 0:
                _make_room(self._aside, folder=split)
        if content is None:
            return
        target = self._aside / part_name(rank(), world_size()) if split else self._aside
        if background:
            # A daemon: a run that fails ends at once, and what lies aside is swept away by the next.
            self._thread = threading.Thread(target=self._write, args=(content, target), daemon=True)
            self._thread.start()
        else:
            self._write(content, target)

    def _write(self, content: dict[str, Any], target: Path) -> None:
        try:
            with target.open('wb') as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            _read_again(target, content)
        except CheckpointError as error:
            self._error = error
        except Exception as error:  # whatever it is: all processes have to hear of it, and the file is not to be used
            self._error = write_error(self.path, error)
            self._error.__cause__ = error

    def written(self) -> bool:
        """Return whether every rank has written its part, or failed to."""
        return all_reduce_counts(int(self._thread is not None and self._thread.is_alive()))[0] == 0

    def finish(self) -> Path:
        """Wait until the checkpoint is complete, and return its path.

        Raises:
            CheckpointError: Some process could not write (disk full, no permission); nothing is left behind.
        """
        if self._thread is not None:
            self._thread.join()
        try:
            with raise_on_all_ranks():
                if self._error is not None:
                    raise self._error
            with raise_on_all_ranks():
                if rank() == 0:
                    _put_in_place(self._aside, self.path)
        except CheckpointError:
            if rank() == 0:
                remove_path(self._aside)
            raise
        return self.path


def _make_room(aside: Path, folder: bool) -> None:
    try:
        remove_path(aside)
        if folder:
            aside.mkdir(parents=True)
    except OSError as error:
        raise write_error(aside, error) from error


def _put_in_place(aside: Path, path: Path) -> None:
    try:
        if path.is_dir() or aside.is_dir():
            remove_path(path)
        os.replace(aside, path)
    except OSError as error:
        raise write_error(path, error) from error


def _read_again(path: Path, content: dict[str, Any]) -> None:
    """Compare names, shapes and dtypes in the file with those to write; values are not read.

    Raises:
        CheckpointError: Something is missing, or has another shape or type.
    """
    written = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
    for part in ('state_dict', 'optimizer', 'initial_adapter'):
        if _layouts(written.get(part)) != _layouts(content.get(part)):
            raise CheckpointError(
                f'{path}, read again after it was written, does not hold the tensors of this run; it was discarded. '
                'Earlier checkpoints are untouched; look at the disk.'
            )


def _layouts(value: Any) -> Any:
    if torch.is_tensor(value):
        return value.shape, value.dtype
    return {name: _layouts(one) for name, one in value.items()} if isinstance(value, dict) else None


def write_error(path: Path, error: Exception) -> CheckpointError:
    """Return the error of a failed write, with the free disk space."""
    reason = error.__context__ if isinstance(error.__context__, OSError) else error  # what lies below torch's words
    free = shutil.disk_usage(path.parent).free / 2**20 if path.parent.exists() else 0
    return CheckpointError(
        f'{path} could not be written: {str(reason).splitlines()[0]} ({free:,.0f} MiB free there). '
        'Earlier checkpoints are untouched. Free disk space, or set checkpoint.keep or --work-dir; then use --resume.'
    )


@contextmanager
def staged_folder(folder: Path) -> Iterator[Path]:
    """Give a new folder to write into; it takes `folder`'s place only if the block succeeds.

    Raises:
        CheckpointError: It could not be written; nothing is left behind.
    """
    aside = folder.with_name(f'.{folder.name}.tmp')
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        yield aside
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(aside, folder)
    except (OSError, SafetensorError) as error:
        raise write_error(folder, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
