"""Activation checkpointing with the inputs of layers in CPU memory between their forward and backward pass.

Checkpointing saves one tensor [B, S, H] per layer, its input. Copies run on a stream of their own: to the CPU while the
next layers compute, and back to the GPU one layer ahead of the backward pass.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

from .layer_call import LayerCall, checkpoint_layer

# Bytes below which a tensor stays on its device.
MIN_BYTES = 2**20


class OffloadedCheckpoint:
    """A layer call with activation checkpointing whose inputs wait in CPU memory.

    Args:
        checkpointed: The layer call to offload the inputs of.
        min_bytes: Smaller tensors stay on their device.
        device_types: Types of devices to offload from.
    """

    def __init__(
        self,
        checkpointed: LayerCall = checkpoint_layer,
        min_bytes: int = MIN_BYTES,
        device_types: tuple[str, ...] = ('cuda',),
    ) -> None:
        self._checkpointed, self._min_bytes, self._device_types = checkpointed, min_bytes, device_types
        self._input_storages: set[int] = set()
        self._latest: weakref.ref[_OffloadedTensor] | None = None
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def __call__(self, layer: Callable, *args: Any, **kwargs: Any) -> Any:
        # Compiled layers save their weights too, which stay on the device.
        self._input_storages = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        # Hooks that `checkpoint` registers inside of this call come first for the tensors inside of `layer`.
        with saved_tensors_hooks(self._pack, self._unpack):
            return self._checkpointed(layer, *args, **kwargs)

    def _pack(self, tensor: torch.Tensor) -> 'torch.Tensor | _OffloadedTensor':
        if tensor.device.type not in self._device_types or tensor.nbytes < self._min_bytes:
            return tensor
        if tensor.untyped_storage().data_ptr() not in self._input_storages:
            return tensor
        previous = self._latest and self._latest()
        if previous is not None:
            previous.release()
        offloaded = _OffloadedTensor(tensor, self._latest, self._stream(tensor.device))
        self._latest = weakref.ref(offloaded)
        return offloaded

    def _unpack(self, saved: 'torch.Tensor | _OffloadedTensor') -> torch.Tensor:
        if not isinstance(saved, _OffloadedTensor):
            return saved
        tensor = saved.take()
        previous = saved.previous and saved.previous()
        if previous is not None:
            previous.prefetch()
        return tensor

    def _stream(self, device: torch.device) -> torch.cuda.Stream | None:
        if device.type != 'cuda':
            return None
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)
        return self._streams[device]


class _OffloadedTensor:
    """A tensor in CPU memory. `previous` was offloaded before it, and is needed after it.

    Device memory that a copy on the other stream reads or writes is freed only after the compute stream waits for that
    copy. So the allocator can reuse it at once, without having to check whether the copy is done.
    """

    def __init__(
        self,
        tensor: torch.Tensor,
        previous: 'weakref.ref[_OffloadedTensor] | None',
        stream: torch.cuda.Stream | None,
    ) -> None:
        self.previous, self.device, self._stream = previous, tensor.device, stream
        self._on_device: torch.Tensor | None = None  # while a copy from it or to it may be under way
        tensor = tensor.detach()
        self._on_cpu = torch.empty_like(tensor, device='cpu', pin_memory=stream is not None)
        if stream is None:
            self._on_cpu.copy_(tensor)
            return
        self._on_device = tensor
        self._copy(self._on_cpu, tensor)

    def release(self) -> None:
        """Free the device memory after the copy to the CPU; call it once other work is queued."""
        if self._on_device is not None:
            self._wait_for_copy()
            self._on_device = None

    def prefetch(self) -> None:
        """Begin to copy the tensor back to its device, unless it is there."""
        if self._on_device is not None:
            return
        self._on_device = torch.empty_like(self._on_cpu, device=self.device, pin_memory=False)
        self._copy(self._on_device, self._on_cpu)

    def take(self) -> torch.Tensor:
        """Return the tensor on its device; each call copies it again."""
        self.prefetch()
        self._wait_for_copy()
        tensor, self._on_device = self._on_device, None
        return tensor

    def _copy(self, destination: torch.Tensor, source: torch.Tensor) -> None:
        if self._stream is None:
            destination.copy_(source)
            return
        # The source is computed on the compute stream, and work there may still read the destination's memory.
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            destination.copy_(source, non_blocking=True)
            self._copied = self._stream.record_event()

    def _wait_for_copy(self) -> None:
        if self._stream is not None:
            torch.cuda.current_stream(self.device).wait_event(self._copied)

    def __del__(self) -> None:
        self.release()  # after a step that failed halfway
