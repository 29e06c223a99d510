"""Writes checkpoints and exports their adapters; keeps the latest ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from tqdm import tqdm

from ...config.sections import Checkpoint
from ...parallel.collectives import raise_on_all_ranks, rank
from ...registry import HOOKS
from .. import checkpoint_io
from ..checkpoint_writer import PendingCheckpoint


@HOOKS.register_module()
class CheckpointHook(Hook):
    """Writes `iter_N.pth` and `epoch_N.pth`; a finished or interrupted run always writes a last one.

    Args:
        settings: The section `checkpoint`.
        export: Writes the Hugging Face folder beside a checkpoint; None: no folder is written.
    """

    priority = 'VERY_LOW'  # after the learning rate schedule has stepped

    def __init__(self, settings: Checkpoint, export: Callable[[Path], None] | None) -> None:
        self.settings, self.export = settings, export
        self._saved_at = -1
        self._pending: PendingCheckpoint | None = None  # written in the background

    def before_train(self, runner: Any) -> None:
        self._saved_at = runner.train_loop.steps_done  # the checkpoint of a resumed run is on disk already

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self._pending is not None and self._pending.is_written():
            self._finish()
        done, every = runner.train_loop.steps_done, self.settings.every_steps
        if every and done % every == 0 and not self._ends_saved_epoch(runner):
            self._save(runner, f'iter_{done}.pth')

    def after_train_epoch(self, runner: Any, metrics: Any = None) -> None:
        if self._ends_saved_epoch(runner):
            self._save(runner, f'epoch_{runner.train_loop.steps_done // runner.train_loop.steps_per_epoch}.pth')

    def after_train(self, runner: Any) -> None:
        if runner.train_loop.steps_done != self._saved_at and runner.train_loop.steps_done:
            self._save(runner, f'iter_{runner.train_loop.steps_done}.pth')
        self._finish()

    def before_stop(self, runner: Any) -> None:
        """Finish the checkpoint that is being written, because an error on all ranks ends the run."""
        self._finish()

    def _ends_saved_epoch(self, runner: Any) -> bool:
        """Return whether the last step ended an epoch whose checkpoint `after_train_epoch` writes."""
        loop, every = runner.train_loop, self.settings.every_epochs
        return bool(every) and loop.steps_done % (loop.steps_per_epoch * every) == 0

    def _save(self, runner: Any, name: str) -> None:
        self._finish()
        self._pending = runner.save_checkpoint(runner.work_dir, name, self.settings.background)
        self._saved_at = runner.train_loop.steps_done
        if not self._pending.background:
            self._finish()

    def _finish(self) -> None:
        """Wait for the checkpoint that is being written, and write its name to `last_checkpoint`."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        path = pending.finish()
        with raise_on_all_ranks():
            if rank() == 0:
                checkpoint_io.write_pointer(path)
        if self.export is not None:
            with raise_on_all_ranks():
                self.export(path)
        tqdm.write(f'saved {_short(path)}')
        if self.settings.keep and rank() == 0:
            self._remove_old(path)

    def _remove_old(self, newest: Path) -> None:
        older = [path for path in checkpoint_io.candidates(newest.parent) if path != newest]
        for path in older[self.settings.keep - 1 :]:
            checkpoint_io.remove_checkpoint(path)


def _short(path: Path) -> Path:
    """Return `path` relative to the current folder, if it is inside."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
