"""Hidden states between recomputed layers, in host memory from the forward pass of a layer to its backward pass.

[B, S, H] a layer is all that recomputation keeps. Copies run on a stream of their own: out while the next layers
compute, and back one layer ahead of the backward pass.
"""

import weakref
from collections.abc import Callable
from copy import copy
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

from .activation_checkpointing import Way, recompute

# Bytes; what is smaller stays where it is.
SMALL = 2**20


class Offload:
    """A way to call layers: recomputed, with their arguments in host memory.

    Args:
        small: Tensors of fewer bytes stay.
        devices: Types of devices whose memory is spared.
    """

    def __init__(self, small: int = SMALL, devices: tuple[str, ...] = ('cuda',)) -> None:
        self.small, self.devices = small, devices
        self._recompute: Way = recompute
        self._between: set[int] = set()
        self._last: weakref.ref[_Held] | None = None
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def through(self, recompute: Way) -> 'Offload':
        """Return the same for layers that recompute in this way."""
        other = copy(self)
        other._recompute = recompute
        return other

    def __call__(self, layer: Callable, *args: Any, **kwargs: Any) -> Any:
        # Compiled layers save their weights too, which stay.
        self._between = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        with saved_tensors_hooks(self._pack, self._unpack):  # inside `layer`, those of recomputation count
            return self._recompute(layer, *args, **kwargs)

    def _pack(self, tensor: torch.Tensor) -> 'torch.Tensor | _Held':
        if tensor.device.type not in self.devices or tensor.nbytes < self.small:
            return tensor
        if tensor.untyped_storage().data_ptr() not in self._between:
            return tensor
        before = self._last and self._last()
        if before is not None:
            before.leave()
        held = _Held(tensor, self._last, self._stream(tensor.device))
        self._last = weakref.ref(held)
        return held

    def _unpack(self, packed: 'torch.Tensor | _Held') -> torch.Tensor:
        if not isinstance(packed, _Held):
            return packed
        tensor = packed.take()
        before = packed.before and packed.before()
        if before is not None:
            before.fetch()
        return tensor

    def _stream(self, device: torch.device) -> torch.cuda.Stream | None:
        if device.type != 'cuda':
            return None
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)
        return self._streams[device]


class _Held:
    """A tensor in host memory. `before` is the one that was put there before it, and is wanted after it.

    Memory that a copy on the other stream reads or writes is given away only after the computing stream waits for the
    copy; so it can be taken at once, which it could not be if the allocator had to look whether the copy is done.
    """

    def __init__(
        self, tensor: torch.Tensor, before: 'weakref.ref[_Held] | None', stream: torch.cuda.Stream | None
    ) -> None:
        self.before, self.device, self._stream = before, tensor.device, stream
        self._there: torch.Tensor | None = None  # on the device, while a copy to or from it may be on its way
        tensor = tensor.detach()
        self._host = torch.empty_like(tensor, device='cpu', pin_memory=stream is not None)
        if stream is None:
            self._host.copy_(tensor)
            return
        self._there = tensor
        self._copy(self._host, tensor)

    def leave(self) -> None:
        """Give the device's memory back as soon as the copy is done; call it when there is other work to do."""
        if self._there is not None:
            self._wait()
            self._there = None

    def fetch(self) -> None:
        """Begin to copy it back, unless it is there."""
        if self._there is not None:
            return
        self._there = torch.empty_like(self._host, device=self.device, pin_memory=False)
        self._copy(self._there, self._host)

    def take(self) -> torch.Tensor:
        """Return the tensor on its device; it is copied again for each call."""
        self.fetch()
        self._wait()
        tensor, self._there = self._there, None
        return tensor

    def _copy(self, to: torch.Tensor, source: torch.Tensor) -> None:
        if self._stream is None:
            to.copy_(source)
            return
        # What is copied is computed there, and the memory may be one that work there still reads.
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            to.copy_(source, non_blocking=True)
            self._done = self._stream.record_event()

    def _wait(self) -> None:
        if self._stream is not None:
            torch.cuda.current_stream(self.device).wait_event(self._done)

    def __del__(self) -> None:
        self.leave()  # a step that failed halfway
