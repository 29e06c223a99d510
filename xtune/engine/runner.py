"""mmengine's FlexibleRunner with xtune's checkpoints."""

from pathlib import Path
from typing import Any

import torch

from ..compat.mmengine_runner_private import RunnerWithoutEnvironmentLog
from ..data.cursor import Cursor
from ..errors import CheckpointError
from ..utils.cpu_threads import restore_thread_count
from . import checkpoint_io
from .checkpoint_writer import PendingCheckpoint
from .probe_recorder import ProbeRecorder
from .resume_checks import check_built
from .trainer import Trainer


class TuneRunner(RunnerWithoutEnvironmentLog):
    """A FlexibleRunner that saves and resumes bit-exactly.

    Args:
        run_meta: Metadata of the run in each checkpoint: `plan` (a hash of data order and batch settings),
            `sequences_per_step` (on all devices), `config` (text), `export` (see hf_format/writer.py) and
            `base_fingerprint` (see engine/base_fingerprint.py).
        probe_recorder: Computes the probe logits of each checkpoint.
        trainer: Executes the optimizer steps.
    """

    def __init__(
        self, *args: Any, run_meta: dict[str, Any], probe_recorder: ProbeRecorder, trainer: Trainer, **kwargs: Any
    ) -> None:
        self.run_meta, self.probe_recorder, self.trainer = run_meta, probe_recorder, trainer
        super().__init__(*args, **kwargs)

    def dump_config(self) -> None:
        """Do nothing: the run's flat config is already in the work_dir."""

    def save_checkpoint(self, out_dir: str, filename: str, background: bool = False, **_: Any) -> PendingCheckpoint:
        """Start writing `filename` after the completed steps; return an object that finishes it.

        A collective call.

        Raises:
            CheckpointError: It could not be written; earlier files are unchanged.
        """
        steps = self.train_loop.steps_done
        meta = dict(self.run_meta, iter=steps, epoch=steps // self.train_loop.steps_per_epoch)
        meta['threads'] = torch.get_num_threads()
        if self.train_loop.cursor is not None:
            meta['cursor'] = self.train_loop.cursor.to_dict()
        probe = self.probe_recorder(steps)
        extra = dict(meta=meta, probe=probe.to_dict() if probe else None)
        return self.strategy.save_checkpoint(str(Path(out_dir) / filename), extra_ckpt=extra, background=background)

    def resume(self, filename: str, *_: Any, **__: Any) -> None:
        """Resume from a checkpoint.

        Raises:
            CheckpointError: It is damaged or unsafe, or its data, batches or model differ from those of this run.
        """
        path, state = Path(filename), self.strategy.state
        checkpoint = checkpoint_io.load(path, verified=True)
        check_built(path, checkpoint['meta'], set(checkpoint['state_dict']), self.run_meta, state.names())
        checkpoint = self.strategy.resume(filename)
        meta = checkpoint['meta']
        self._check_progress(filename, meta)
        if not torch.cuda.is_available():
            restore_thread_count(meta.get('threads'))
        self.train_loop.start_at(meta['iter'], Cursor(**meta['cursor']) if 'cursor' in meta else None)

    def _check_progress(self, filename: str, meta: dict[str, Any]) -> None:
        """Refuse a checkpoint whose data, batches or step do not belong to this run.

        Raises:
            CheckpointError: They do not.
        """
        current, saved = self.run_meta['sequences_per_step'], meta.get('sequences_per_step')
        if saved not in (None, current):
            raise CheckpointError(
                f'{filename} was written with {saved} sequences per optimizer step, but this run has {current} '
                '(schedule.batch_size x schedule.gradient_accumulation_steps x devices / '
                'strategy.sequence_parallel_size). Change schedule.batch_size and '
                f'schedule.gradient_accumulation_steps to get {saved}.'
            )
        if meta['plan'] != self.run_meta['plan']:
            raise CheckpointError(
                f'{filename} was written with other data or other batches (rows, template, max_length, pack or seed), '
                'so the run cannot be resumed. Restore these options (the config of the checkpoint is in '
                f'{Path(filename).parent}), or start a new run.'
            )
        if meta['iter'] > self.train_loop.max_iters:
            raise CheckpointError(
                f'{filename} is at step {meta["iter"]}, but this run has only {self.train_loop.max_iters} steps; '
                'increase schedule.max_epochs or schedule.max_steps'
            )
