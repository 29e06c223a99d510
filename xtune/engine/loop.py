"""The training loop: one iteration is one optimizer step, so every hook counts in optimizer steps."""

import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict
from typing import Any

import torch
from mmengine.runner import BaseLoop

from ..data.cursor import Cursor
from ..data.prefetch import prefetch
from ..data.steps import Step
from ..errors import DataError, NonFiniteError
from ..parallel.collectives import is_distributed, rank
from ..registry import LOOPS
from ..utils.interruption import NOTHING_TO_SAVE, Output, handling, say
from .nan_report import NonFiniteStep


@LOOPS.register_module()
class StepLoop(BaseLoop):
    """Runs the optimizer steps from the current one to the end of the run.

    Args:
        runner: The runner.
        dataloader: Its data set is one of `xtune.data.steps`; item i is optimizer step i.
    """

    def __init__(self, runner: Any, dataloader: Any) -> None:
        super().__init__(runner, dataloader)
        self._iter = self._epoch = 0
        self.steps_done = self.start_step = 0
        self.steps_per_epoch = dataloader.dataset.steps_per_epoch
        self.cursor: Cursor | None = None  # position in a stream of rows after the completed steps
        self.interrupted = False  # a rank received a signal
        self.stop_training = False  # set by hooks such as mmengine's EarlyStoppingHook
        self._signal: signal.Signals | None = None
        self._ending = False  # all steps are done; the last checkpoint is being written

    @property
    def iter(self) -> int:
        """Index of the current optimizer step, from 0; mmengine's hooks count from it."""
        return self._iter

    @property
    def epoch(self) -> int:
        """Index of the current epoch, from 0."""
        return self._epoch

    @property
    def max_iters(self) -> int:
        """Optimizer steps of the whole run."""
        return len(self.dataloader.dataset)

    @property
    def max_epochs(self) -> int:
        """Epochs of the whole run, including an incomplete last one."""
        return -(-self.max_iters // self.steps_per_epoch)

    def start_at(self, steps_done: int, cursor: Cursor | None = None) -> None:
        """Start after `steps_done` completed optimizer steps, with a stream of rows at `cursor`."""
        self.steps_done, self._iter, self.cursor = steps_done, steps_done, cursor
        self.start_step = steps_done
        self._epoch = steps_done // self.steps_per_epoch

    def run(self) -> torch.nn.Module:
        """Train until the end, or until a signal or a hook stops the run after the current step; return the model.

        Raises:
            NonFiniteError: The loss or a gradient is NaN or infinite.
        """
        runner = self.runner
        runner.trainer.rank_flag = lambda: self._signal is not None
        self.dataloader.batch_sampler.start = self._iter
        self.dataloader.dataset.seek(self.cursor)
        with self._catching_signals():
            runner.call_hook('before_train')
            runner.model.train()
            try:
                with closing(self._batches()) as steps:
                    for batches in steps:
                        self._step(batches)
                        self.interrupted |= self._signal is not None and not is_distributed()
                        if self.interrupted or self.stop_training:
                            break
            except DataError as error:  # torch prefixes the message with the traceback of the worker
                raise DataError(str(error).rpartition('errors.DataError: ')[2]) from error
            self._ending = True
            runner.call_hook('after_train')
        return runner.model

    def _batches(self) -> Iterator[Step]:
        """Yield the batches of each step, prefetched by data loader workers, or by a thread without workers."""
        steps = self._pinned() if self.runner.model.device.type == 'cuda' else (step for step in self.dataloader)
        return steps if self.dataloader.num_workers else prefetch(steps)

    def _pinned(self) -> Iterator[Step]:
        # In the pinning thread: a new thread uses GPU 0, which belongs to another rank.
        torch.cuda.set_device(self.runner.model.device)
        for step in self.dataloader:
            yield step.pin_memory()

    def _step(self, batches: Step) -> None:
        runner = self.runner
        if self._iter % self.steps_per_epoch == 0:
            runner.call_hook('before_train_epoch')
        runner.call_hook('before_train_iter', batch_idx=self._iter, data_batch=batches)
        try:
            metrics = runner.trainer.train_step(batches)
            runner.optim_wrapper.step()
        except NonFiniteStep as error:
            runner.call_hook('before_stop')  # not a hook of mmengine, see CheckpointHook
            raise self._non_finite(error) from error
        self.steps_done, self.cursor, self.interrupted = self._iter + 1, batches.cursor, metrics.num_flags > 0
        outputs = asdict(metrics)
        runner.call_hook('after_train_iter', batch_idx=self._iter, data_batch=batches, outputs=outputs)
        self._iter += 1
        if self._iter % self.steps_per_epoch == 0:
            runner.call_hook('after_train_epoch')
            self._epoch += 1

    def _non_finite(self, error: NonFiniteStep) -> NonFiniteError:
        places = error.places[:5]
        omitted = f'\n  and {len(error.places) - 5} more' if len(error.places) > 5 else ''
        return NonFiniteError(
            f'optimizer step {self._iter + 1}: loss {error.loss}, gradient norm {error.grad_norm}. '
            f'First non-finite value: {error.where}. The weights were not updated. Rows of the step:\n  '
            + '\n  '.join(places)
            + omitted
            + '\n'
            'Check these rows (`xtune log-dataset`), lower optimizer.lr, or set precision to fp32; '
            'then continue from the last checkpoint with --resume.'
        )

    @contextmanager
    def _catching_signals(self) -> Iterator[None]:
        """Stop after the current step on the first Ctrl-C or SIGTERM, and immediately on the second."""
        streams = (Output(stream, lambda: self._signal is not None) for stream in (sys.stdout, sys.stderr))
        with (
            handling(self._stop, signal.SIGINT, signal.SIGTERM),
            redirect_stdout(next(streams)),
            redirect_stderr(next(streams)),
        ):
            yield

    def _stop(self, number: int, _frame: Any) -> None:
        """Handle a signal. A launcher forwards Ctrl-C as SIGTERM, which does not count as a second signal."""
        if self._signal and not (is_distributed() and number == signal.SIGTERM):
            raise KeyboardInterrupt('interrupted again: exited without saving')
        if self.steps_done == self.start_step and not is_distributed():
            kept = f'; the checkpoint of step {self.start_step} is kept' if self.start_step else ''
            raise KeyboardInterrupt(NOTHING_TO_SAVE + kept)
        if self._signal is None and rank() == 0:
            action = 'saving the last checkpoint' if self._ending else 'stopping after this step, then saving'
            name = '' if number == signal.SIGINT else f'{signal.Signals(number).name}: '
            say(f'{name}{action}; press Ctrl-C again to exit without saving')
        self._signal = signal.Signals(number)
