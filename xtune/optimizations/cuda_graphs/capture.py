"""Functions recorded as CUDA graphs: the one place that knows what torch keeps of a recording that failed."""

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch

from .segment import Tensors


@lru_cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of `device` that all recorders share: cuBLAS takes 64 MiB for each stream, and keeps them."""
    return torch.cuda.Stream(device)


class CudaGraphCapture:
    """A `Recorder` on a GPU. All that it records shares memory, which nothing else gets as long as it is there."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, _stream(device)
        self._failed: list[torch.cuda.CUDAGraph] = []  # torch aborts when one is deleted
        self.renew()

    def renew(self) -> None:
        """Take other memory from here on."""
        self._pool = torch.cuda.graph_pool_handle()

    def idle(self) -> int:
        """Return the bytes that the last recording computes in beside tensors; the allocator counts its peak anew."""
        peak = torch.cuda.max_memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        return peak - torch.cuda.memory_allocated(self._device)

    @contextmanager
    def trial(self, strict: bool) -> Iterator[None]:
        """Return a context in which kernels and workspaces that a first call makes come to be where recording is.

        Raises:
            RuntimeError: Something waits for the GPU in a strict one.
        """
        gc.collect()
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.get_sync_debug_mode()
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        try:
            with torch.cuda.stream(self._stream):
                _set_sync_debug_mode('error' if strict else before)
                yield
        finally:
            _set_sync_debug_mode(before)
            torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def __call__(self, function: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], None]]:
        """Record `function`; return what it returns, and what runs its kernels again.

        Raises:
            RuntimeError: It cannot be recorded.
        """
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        try:
            # Other threads, which make the next batches and pin them, are free to ask for memory meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode='thread_local'):
                made = function()
        except RuntimeError:
            self._mend(graph, before)
            raise
        return made, graph.replay

    def _mend(self, graph: torch.cuda.CUDAGraph, before: torch.cuda.Stream) -> None:
        """Undo what a recording that failed leaves: its stream, its memory, and a generator that is recorded."""
        torch.cuda.set_stream(before)
        index = before.device.index
        generator = torch.cuda.default_generators[index]
        generator.graphsafe_set_state(generator.clone_state())
        try:
            torch._C._cuda_endAllocateToPool(index, self._pool)
        except RuntimeError:  # the recording ended in order, as after an error of Python's
            return
        self._failed.append(graph)
        torch._C._cuda_releasePool(index, self._pool)


def _set_sync_debug_mode(mode: int | str) -> None:
    with warnings.catch_warnings():  # torch warns that not all operations are covered
        warnings.simplefilter('ignore', UserWarning)
        torch.cuda.set_sync_debug_mode(mode)
