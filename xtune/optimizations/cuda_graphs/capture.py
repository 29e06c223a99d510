"""Captures functions as CUDA graphs, and cleans up after a capture that failed.

`torch.cuda.make_graphed_callables` does neither for our use: it captures in CUDA's global mode, in which another thread
cannot pin memory, and after a failed capture the process can no longer draw random numbers on the GPU.
"""

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch

from ...compat.torch_private import release_capture_pool
from .segment import Tensors


@lru_cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Return the capture stream of `device`, one for all captures: cuBLAS keeps 64 MiB of workspace for each stream."""
    return torch.cuda.Stream(device)


class CudaGraphCapture:
    """A `GraphCapture` on a GPU. All its graphs share a memory pool, which nothing else uses while they exist."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, _stream(device)
        self._failed: list[torch.cuda.CUDAGraph] = []  # torch aborts when one is deleted
        self.new_pool()

    def new_pool(self) -> None:
        """Use another memory pool from now on."""
        self._pool = torch.cuda.graph_pool_handle()

    def scratch_bytes(self) -> int:
        """Return the bytes that the graphs captured since the last warm-up use besides their tensors, and reset the
        peak statistics of the allocator."""
        peak = torch.cuda.max_memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        return peak - torch.cuda.memory_allocated(self._device)

    @contextmanager
    def warmup(self, strict: bool) -> Iterator[None]:
        """Return a context on the capture stream, for first calls that load kernels and allocate workspaces.

        Raises:
            RuntimeError: In a strict one, something synchronizes with the GPU.
        """
        gc.collect()
        torch.cuda.reset_peak_memory_stats(self._device)
        mode = torch.cuda.get_sync_debug_mode()
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        try:
            with torch.cuda.stream(self._stream):
                _set_sync_debug_mode('error' if strict else mode)
                yield
        finally:
            _set_sync_debug_mode(mode)
            torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def __call__(self, function: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], None]]:
        """Capture `function`; return its result, and a function that replays its kernels.

        Raises:
            RuntimeError: It cannot be captured.
        """
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        try:
            # thread_local: other threads, which make and pin the next batches, may allocate memory meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode='thread_local'):
                result = function()
        except RuntimeError:
            self._clean_up(graph, stream)
            raise
        return result, graph.replay

    def _clean_up(self, graph: torch.cuda.CUDAGraph, stream: torch.cuda.Stream) -> None:
        """Restore what a failed capture leaves: its stream, its memory pool, and a generator in capture mode."""
        torch.cuda.set_stream(stream)
        index = stream.device.index
        generator = torch.cuda.default_generators[index]
        generator.graphsafe_set_state(generator.clone_state())
        if release_capture_pool(index, self._pool):  # False: the capture ended in order, as after an error in Python
            self._failed.append(graph)


def _set_sync_debug_mode(mode: int | str) -> None:
    with warnings.catch_warnings():  # torch warns that not all operations are covered
        warnings.simplefilter('ignore', UserWarning)
        torch.cuda.set_sync_debug_mode(mode)
