"""Retries an optimizer step that runs out of memory, with more layers checkpointed."""

from typing import TYPE_CHECKING, Any

import torch

from ..data.batches import MicroBatch
from ..optimizations.activation_checkpointing import ActivationCheckpointing, CheckpointPolicy
from ..parallel.collectives import all_reduce_counts
from ..utils.device import random_numbers
from .oom_report import shortage

if TYPE_CHECKING:
    from ..tasks.sft import SupervisedFineTuning


class Retry:
    """Accumulates the gradients of a step, and retries it when memory runs out.

    Args:
        task: The model and its loss.
        layers: Its layers.
    """

    def __init__(self, task: 'SupervisedFineTuning', layers: ActivationCheckpointing) -> None:
        self._task, self._layers = (task,), layers  # in a tuple: the task refers to this object too

    def add_gradients(self, data: list[MicroBatch], optim_wrapper: Any, trained: int) -> torch.Tensor:
        """Call the task's method of this name until the step fits into memory.

        Raises:
            OutOfMemory: The step does not fit even with all layers checkpointed.
        """
        (task,) = self._task
        restore_random_state = random_numbers(task.device)
        while True:
            total, error = None, None
            try:
                total = task.add_gradients(data, optim_wrapper, trained)
            except torch.OutOfMemoryError as raised:
                error = raised.with_traceback(None)  # frames of the error and of its cause refer to tensors
                error.__cause__ = error.__context__ = None
            # All ranks retry: a rank that went on alone would wait in the next collective.
            if not all_reduce_counts(int(error is not None))[0]:
                return total
            task.drop_gradients()
            released = task.graphs is not None and task.graphs.disable()
            if task.device.type == 'cuda':
                torch.cuda.empty_cache()
            if released:
                print('note: out of memory; released the CUDA graphs', flush=True)
            if not all_reduce_counts(int(released))[0]:
                self._checkpoint_more(data, optim_wrapper, error)
            restore_random_state()

    def _checkpoint_more(self, data: list[MicroBatch], optim_wrapper: Any, error: Exception | None) -> None:
        layers, (task,) = self._layers, self._task
        if not layers.num_plain:
            largest = max(data, key=lambda batch: batch.input_ids.numel())
            states = optim_wrapper.optimizer.state
            raise shortage(task.llm, task.trained_parameters().values(), states, largest, task.has_logits) from error
        layers.apply(CheckpointPolicy(len(layers) - layers.num_plain // 2))
        print(
            'note: out of memory; retrying the step with '
            f'{layers.num_checkpointed} of {len(layers)} layers checkpointed',
            flush=True,
        )
