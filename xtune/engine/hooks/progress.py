"""The progress line, metrics.jsonl and TensorBoard scalars."""

import time
from datetime import timedelta
from typing import Any

import torch
from mmengine.hooks import Hook
from tqdm import tqdm

from ...registry import HOOKS
from ...utils.device import peak_memory
from ..metrics_file import MetricsFile


@HOOKS.register_module()
class ProgressHook(Hook):
    """Reports every `every_steps` optimizer steps and at the last one.

    The loss is the mean over the label tokens since the last report; tokens/s counts all tokens except padding.
    A terminal also shows a progress bar; a pipe receives the lines only.
    """

    priority = 'BELOW_NORMAL'

    def __init__(self, metrics: MetricsFile, every_steps: int) -> None:
        self.metrics, self.every_steps = metrics, every_steps

    def before_train(self, runner: Any) -> None:
        loop = runner.train_loop
        self.metrics.truncate_after(loop.steps_done)
        self._start_time, self._start_step = time.perf_counter(), loop.steps_done
        self._bar = tqdm(total=loop.max_iters, initial=loop.steps_done, unit='step', disable=None, leave=False)
        self._start_window()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._loss_sum += outputs['loss'] * outputs['num_label_tokens']
        self._num_label_tokens += outputs['num_label_tokens']
        self._num_tokens += outputs['num_tokens']
        self._bar.update()
        loop = runner.train_loop
        if loop.steps_done % self.every_steps == 0 or loop.steps_done == loop.max_iters or loop.interrupted:
            self._report(runner, outputs['grad_norm'])
            self._start_window()

    def after_train(self, runner: Any) -> None:
        self._bar.close()

    def _start_window(self) -> None:
        self._loss_sum, self._num_label_tokens, self._num_tokens = 0.0, 0, 0
        self._window_start = time.perf_counter()

    def _report(self, runner: Any, grad_norm: float) -> None:
        loop, now = runner.train_loop, time.perf_counter()
        step, total = loop.steps_done, loop.max_iters
        scalars = dict(
            loss=self._loss_sum / self._num_label_tokens,
            lr=runner.optim_wrapper.get_lr()['lr'][0],
            grad_norm=grad_norm,
            tokens_per_second=round(self._num_tokens / (now - self._window_start), 1),
            memory_gib=round(peak_memory(runner.model.device) + _cuda_graph_gib(runner.model), 3),
        )
        self.metrics.add(step, epoch=round(step / loop.steps_per_epoch, 4), **scalars)
        runner.visualizer.add_scalars({f'train/{k}': v for k, v in scalars.items()}, step=step)
        seconds = (now - self._start_time) / max(step - self._start_step, 1) * (total - step)
        tqdm.write(
            f'step {step}/{total}  epoch {min(loop.epoch + 1, loop.max_epochs)}/{loop.max_epochs}  '
            f'loss {scalars["loss"]:.4f}  lr {scalars["lr"]:.2e}  grad norm {grad_norm:.2f}  '
            f'{scalars["tokens_per_second"]:,.0f} tokens/s  {scalars["memory_gib"]:.1f} GiB  '
            f'eta {timedelta(seconds=round(seconds))}'
        )
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()


def _cuda_graph_gib(task: Any) -> float:
    """Return the GiB of activations in CUDA graphs, which the allocator does not count."""
    graphs = getattr(task, 'graphs', None)
    return 0.0 if graphs is None else graphs.scratch_bytes / 2**30
