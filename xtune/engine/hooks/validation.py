"""The loss on the validation data."""

from typing import Any

import torch
from mmengine.hooks import Hook
from tqdm import tqdm

from ...data.rank_shard import SINGLE_RANK, RankShard
from ...data.split import Split
from ...parallel.collectives import all_reduce_counts, all_reduce_sum
from ...registry import HOOKS
from ..metrics_file import MetricsFile


@HOOKS.register_module()
class ValidationHook(Hook):
    """Measures the mean loss per label token at the end of every epoch, of the run, and every `every_steps`.

    Other hooks get it as `after_val_epoch(runner, metrics={'val_loss': ...})`, the same in every process.
    """

    priority = 'LOW'

    def __init__(
        self,
        split: Split,
        pad_id: int,
        batch_size: int,
        metrics: MetricsFile,
        every_steps: int | None,
        share: RankShard = SINGLE_RANK,
    ) -> None:
        self.split, self.pad_id, self.batch_size, self.share = split, pad_id, batch_size, share
        self.metrics, self.every_steps = metrics, every_steps
        self._measured_at = -1

    def before_train(self, runner: Any) -> None:
        if runner.train_loop.steps_done:  # a resumed run has measured where it stands
            self._measured_at = runner.train_loop.steps_done

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self.every_steps and runner.train_loop.steps_done % self.every_steps == 0:
            self._measure(runner)

    def after_train_epoch(self, runner: Any, metrics: Any = None) -> None:
        self._measure(runner)

    def after_train(self, runner: Any) -> None:
        if not runner.train_loop.interrupted:
            self._measure(runner)

    def _measure(self, runner: Any) -> None:
        step = runner.train_loop.steps_done
        if step == self._measured_at:
            return
        self._measured_at = step
        runner.model.eval()
        total, trained = 0.0, 0
        sequences, store = self.split.sequences, self.split.store
        starts = list(range(0, len(sequences), self.batch_size))
        mine = self.share.select(starts, len(sequences))
        for start in tqdm(mine, desc='validation', disable=None, leave=False):
            chosen = [sequences[i] for i in range(start, min(start + self.batch_size, len(sequences)))]
            batch = self.share.collate(store, chosen, self.pad_id, sequences.concatenated)
            loss_sum, count = runner.model.val_step([batch])
            total, trained = total + loss_sum, trained + count
        runner.model.train()
        (trained,) = all_reduce_counts(trained)
        loss = all_reduce_sum(torch.tensor(total, dtype=torch.float64)).item() / max(trained, 1)
        self.metrics.add(step, val_loss=loss)
        runner.visualizer.add_scalars({'val/loss': loss}, step=step)
        tqdm.write(f'step {step}: validation loss {loss:.4f} over {trained:,} trained tokens')
        runner.call_hook('after_val_epoch', metrics=dict(val_loss=loss))
