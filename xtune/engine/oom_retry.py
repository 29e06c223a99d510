"""A step for which memory runs out is done again, with fewer layers that keep their activations."""

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
    """Adds the gradients of a step; see the module.

    Args:
        task: The model and its loss.
        layers: Its layers.
    """

    def __init__(self, task: 'SupervisedFineTuning', layers: ActivationCheckpointing) -> None:
        self._task, self._layers = (task,), layers  # in a tuple, as the task holds this

    def add_gradients(self, data: list[MicroBatch], optim_wrapper: Any, trained: int) -> torch.Tensor:
        """Do what the task's method does, as often as it takes to fit.

        Raises:
            OutOfMemory: It does not fit, though all layers recompute.
        """
        (task,) = self._task
        back = random_numbers(task.device)
        while True:
            total, error = None, None
            try:
                total = task.add_gradients(data, optim_wrapper, trained)
            except torch.OutOfMemoryError as found:
                error = found.with_traceback(None)  # its frames hold tensors, as do those of what it came from
                error.__cause__ = error.__context__ = None
            # If only those did the step again for whom it did not fit, the processes would part ways.
            if not all_reduce_counts(int(error is not None))[0]:
                return total
            task.drop_gradients()
            dropped = task.graphs is not None and task.graphs.disable()
            if task.device.type == 'cuda':
                torch.cuda.empty_cache()
            if dropped:
                print('note: memory ran out; from here on the layers are no CUDA graphs', flush=True)
            if not all_reduce_counts(int(dropped))[0]:
                self._keep_less(data, optim_wrapper, error)
            back()

    def _keep_less(self, data: list[MicroBatch], optim_wrapper: Any, error: Exception | None) -> None:
        layers, (task,) = self._layers, self._task
        if not layers.num_plain:
            largest = max(data, key=lambda batch: batch.input_ids.numel())
            states = optim_wrapper.optimizer.state
            raise shortage(task.llm, task.trained_parameters().values(), states, largest, task.has_logits) from error
        layers.apply(CheckpointPolicy(len(layers) - layers.num_plain // 2))
        print(
            f'note: memory ran out; from here on {layers.num_checkpointed} of {len(layers)} layers recompute their '
            'activations, and the step is done again',
            flush=True,
        )
