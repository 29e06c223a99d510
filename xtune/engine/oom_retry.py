"""Retries a step after out of memory, with more layers checkpointed."""

from collections.abc import Callable

import torch

from ..data.batches import MicroBatch
from ..optimizations.activation_checkpointing import ActivationCheckpointing, CheckpointPolicy
from ..optimizations.cuda_graphs.runner import CudaGraphRunner
from ..parallel.collectives import all_reduce_counts
from ..utils.device import random_numbers
from .oom_report import oom_error
from .trainer import Trainer


def retry_on_oom(layers: ActivationCheckpointing, graphs: CudaGraphRunner | None) -> Callable[[Trainer], None]:
    """Return a wrapper of `Trainer.forward_backward` that retries after out of memory.

    Args:
        layers: The decoder layers. Each retry checkpoints half of the layers that are not checkpointed.
        graphs: The captured layers, which are released first; None: no layer is captured.
    """

    def wrap(trainer: Trainer) -> None:
        forward_backward, task = trainer.forward_backward, trainer.task

        def retried(micro_batches: list[MicroBatch], num_label_tokens: int) -> torch.Tensor:
            restore_rng = random_numbers(task.device)
            while True:
                loss_sum, error = None, None
                try:
                    loss_sum = forward_backward(micro_batches, num_label_tokens)
                except torch.OutOfMemoryError as raised:
                    error = raised.with_traceback(None)  # the tracebacks of the error and its causes reference tensors
                    error.__cause__ = error.__context__ = None
                # All ranks retry if one does, because they execute the same collectives.
                if not all_reduce_counts(int(error is not None))[0]:
                    return loss_sum
                task.drop_gradients()
                released = graphs is not None and graphs.disable()
                if task.device.type == 'cuda':
                    torch.cuda.empty_cache()
                if released:
                    print('note: out of memory; released the CUDA graphs', flush=True)
                if not all_reduce_counts(int(released))[0]:
                    checkpoint_more(trainer, layers, micro_batches, error)
                restore_rng()

        trainer.forward_backward = retried

    return wrap


def checkpoint_more(
    trainer: Trainer, layers: ActivationCheckpointing, micro_batches: list[MicroBatch], error: Exception | None
) -> None:
    """Checkpoint half of the layers that are not checkpointed yet.

    Raises:
        OutOfMemory: Every layer is checkpointed already.
    """
    task = trainer.task
    if not layers.num_plain:
        largest = max(micro_batches, key=lambda batch: batch.input_ids.numel())
        states = trainer.strategy.optimizer.state
        raise oom_error(task.llm, task.trained_parameters().values(), states, largest, task.has_logits) from error
    layers.apply(CheckpointPolicy(len(layers) - layers.num_plain // 2))
    print(
        f'note: out of memory; retrying the step with {layers.num_checkpointed} of {len(layers)} layers checkpointed',
        flush=True,
    )
