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
    """Computes the mean loss per label token every `every_steps` steps and at the end of every epoch and of the run.

    Other hooks receive it as `after_val_epoch(runner, metrics={'val_loss': ...})`, with the same value on all ranks.
    """

    priority = 'LOW'

    def __init__(
        self,
        split: Split,
        pad_id: int,
        batch_size: int,
        metrics: MetricsFile,
        every_steps: int | None,
        shard: RankShard = SINGLE_RANK,
    ) -> None:
        self.split, self.pad_id, self.batch_size, self.shard = split, pad_id, batch_size, shard
        self.metrics, self.every_steps = metrics, every_steps
        self._last_step = -1

    def before_train(self, runner: Any) -> None:
        if runner.train_loop.steps_done:  # computed before the checkpoint was written
            self._last_step = runner.train_loop.steps_done

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self.every_steps and runner.train_loop.steps_done % self.every_steps == 0:
            self._validate(runner)

    def after_train_epoch(self, runner: Any, metrics: Any = None) -> None:
        self._validate(runner)

    def after_train(self, runner: Any) -> None:
        if not runner.train_loop.interrupted:
            self._validate(runner)

    def _validate(self, runner: Any) -> None:
        step = runner.train_loop.steps_done
        if step == self._last_step:
            return
        self._last_step = step
        runner.model.eval()
        loss_sum, num_label_tokens = 0.0, 0
        sequences, store = self.split.sequences, self.split.store
        starts = list(range(0, len(sequences), self.batch_size))
        starts = self.shard.select(starts, len(sequences))
        for start in tqdm(starts, desc='validation', disable=None, leave=False):
            group = [sequences[i] for i in range(start, min(start + self.batch_size, len(sequences)))]
            batch = self.shard.collate(store, group, self.pad_id, sequences.concatenated)
            batch_loss_sum, batch_label_tokens = runner.model.val_step([batch])
            loss_sum, num_label_tokens = loss_sum + batch_loss_sum, num_label_tokens + batch_label_tokens
        runner.model.train()
        (num_label_tokens,) = all_reduce_counts(num_label_tokens)
        loss = all_reduce_sum(torch.tensor(loss_sum, dtype=torch.float64)).item() / max(num_label_tokens, 1)
        self.metrics.add(step, val_loss=loss)
        runner.visualizer.add_scalars({'val/loss': loss}, step=step)
        tqdm.write(f'step {step}: validation loss {loss:.4f} over {num_label_tokens:,} trained tokens')
        runner.call_hook('after_val_epoch', metrics=dict(val_loss=loss))
