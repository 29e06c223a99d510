"""Write checkpoints: each rank writes to a staging path and verifies its file; then the staging path is renamed."""

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
from .checkpoint_io import remove_path, shard_name


class PendingCheckpoint:
    """A checkpoint that is being written; `path` appears only when it is complete. All ranks make the same calls.

    Args:
        content: The content that this rank writes; None: this rank writes nothing.
        path: Path of the complete checkpoint.
        sharded: Whether `path` is a folder with one shard per rank.
        background: Write in a thread while the caller continues; it must not modify `content`.

    Raises:
        CheckpointError: The staging path cannot be created.
    """

    def __init__(self, content: dict[str, Any] | None, path: Path, sharded: bool = False, background: bool = False):
        self.path, self._staging, self.background = path, path.with_name(f'.{path.name}.tmp'), background
        self._error: CheckpointError | None = None
        self._thread: threading.Thread | None = None
        with raise_on_all_ranks():
            if rank() == 0:
                _prepare_staging(self._staging, is_folder=sharded)
        if content is None:
            return
        target = self._staging / shard_name(rank(), world_size()) if sharded else self._staging
        if background:
            # A daemon: a failed run exits at once, and the next run removes the staging path.
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
            _verify_written(target, content)
        except CheckpointError as error:
            self._error = error
        except Exception as error:  # any error: `finish` raises it on all ranks
            self._error = write_error(self.path, error)
            self._error.__cause__ = error

    def is_written(self) -> bool:
        """Return whether no rank is still writing."""
        return all_reduce_counts(int(self._thread is not None and self._thread.is_alive()))[0] == 0

    def finish(self) -> Path:
        """Wait until the checkpoint is complete, and return its path.

        Raises:
            CheckpointError: A rank could not write (disk full, no permission); the staging path is removed.
        """
        if self._thread is not None:
            self._thread.join()
        try:
            with raise_on_all_ranks():
                if self._error is not None:
                    raise self._error
            with raise_on_all_ranks():
                if rank() == 0:
                    _rename(self._staging, self.path)
        except CheckpointError:
            if rank() == 0:
                remove_path(self._staging)
            raise
        return self.path


def _prepare_staging(staging: Path, is_folder: bool) -> None:
    try:
        remove_path(staging)
        if is_folder:
            staging.mkdir(parents=True)
    except OSError as error:
        raise write_error(staging, error) from error


def _rename(staging: Path, path: Path) -> None:
    try:
        if path.is_dir() or staging.is_dir():
            remove_path(path)
        os.replace(staging, path)
    except OSError as error:
        raise write_error(path, error) from error


def _verify_written(path: Path, content: dict[str, Any]) -> None:
    """Compare names, shapes and dtypes in the file with those to write; values are not read.

    Raises:
        CheckpointError: A tensor is missing, or has another shape or type.
    """
    written = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
    for key in ('state_dict', 'optimizer', 'initial_adapter'):
        if _shapes_and_dtypes(written.get(key)) != _shapes_and_dtypes(content.get(key)):
            raise CheckpointError(
                f'verification of {path} failed: the written file does not contain the tensors of this run. It was '
                'removed. Earlier checkpoints are unchanged; check the disk for errors.'
            )


def _shapes_and_dtypes(value: Any) -> Any:
    if torch.is_tensor(value):
        return value.shape, value.dtype
    return {name: _shapes_and_dtypes(item) for name, item in value.items()} if isinstance(value, dict) else None


def write_error(path: Path, error: Exception) -> CheckpointError:
    """Return the error of a failed write, with the free disk space."""
    reason = error.__context__ if isinstance(error.__context__, OSError) else error  # the cause of torch's error
    free = shutil.disk_usage(path.parent).free / 2**20 if path.parent.exists() else 0
    return CheckpointError(
        f'{path} could not be written: {str(reason).splitlines()[0]} ({free:,.0f} MiB free there). '
        'Earlier checkpoints are unchanged. Free disk space, or set checkpoint.keep or --work-dir; then use --resume.'
    )


@contextmanager
def staged_folder(folder: Path) -> Iterator[Path]:
    """Yield a staging folder; it replaces `folder` if the block succeeds, and is removed otherwise.

    Raises:
        CheckpointError: The folder could not be written.
    """
    staging = folder.with_name(f'.{folder.name}.tmp')
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        yield staging
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(staging, folder)
    except (OSError, SafetensorError) as error:
        raise write_error(folder, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
