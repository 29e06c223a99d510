"""Runs the layers of launch-bound training steps as CUDA graphs."""

import time
from collections.abc import Callable
from typing import Any

from .runner import CudaGraphRunner


def capture_when_launch_bound(graphs: CudaGraphRunner) -> Callable[[Any], None]:
    """Return a wrapper of a trainer that lets `graphs` capture and replay layers in its steps.

    A step is launch-bound if the host hardly waits for the device at the step's host sync. The wrapper measures that
    wait, and reports it after the step, when no gradient is left: capturing runs a backward pass.
    """

    def wrap(trainer: Any) -> None:
        forward_backward, train_step, read = trainer.forward_backward, trainer.train_step, trainer.strategy.read
        sync_began = sync_ended = 0.0

        def graphed(micro_batches: list, num_label_tokens: int) -> Any:
            with graphs.training_step():
                return forward_backward(micro_batches, num_label_tokens)

        def timed_read(values: Any) -> list[float]:
            nonlocal sync_began, sync_ended
            sync_began = time.perf_counter()
            on_host = read(values)
            sync_ended = time.perf_counter()
            return on_host

        def timed_step(micro_batches: list) -> Any:
            began = time.perf_counter()
            metrics = train_step(micro_batches)
            graphs.end_step((sync_ended - sync_began) / (sync_ended - began) * len(micro_batches))
            return metrics

        trainer.forward_backward, trainer.train_step, trainer.strategy.read = graphed, timed_step, timed_read

    return wrap
