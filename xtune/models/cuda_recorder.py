"""Functions recorded as CUDA graphs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from .piece import Tensors


class CudaRecorder:
    """A `Recorder` on a GPU. All that it records shares memory, which nothing else gets as long as it is there."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Return a context in which kernels and workspaces that a first call makes come to be where recording is."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def __call__(self, function: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], None]]:
        """Record `function`; return what it returns, and what runs its kernels again."""
        graph = torch.cuda.CUDAGraph()
        # Other threads, which make the next batches and pin them, are free to ask for memory meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode='thread_local'):
            made = function()
        return made, graph.replay
