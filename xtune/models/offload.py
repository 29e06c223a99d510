"""Hidden states between recomputed layers, in host memory from the forward pass of a layer to its backward pass.

[B, S, H] a layer is all that recomputation keeps. Copies run on a stream of their own: out while the next layers
compute, and back one layer ahead of the backward pass.
"""

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

from .compiling import compiled
from .recompute import Way, keep, recompute

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
        self._inner: Way = keep
        self._last: weakref.ref[_Held] | None = None
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def compiled(self) -> 'Offload':
        """Return the same for compiled layers. Recomputation lies around these: inside, weights would be moved too."""
        other = Offload(self.small, self.devices)
        other._inner = compiled(keep)
        return other

    def __call__(self, layer: Callable, *args: Any, **kwargs: Any) -> Any:
        with saved_tensors_hooks(self._pack, self._unpack):  # inside `layer`, those of recomputation count
            return recompute(partial(self._inner, layer), *args, **kwargs)

    def _pack(self, tensor: torch.Tensor) -> 'torch.Tensor | _Held':
        if tensor.device.type not in self.devices or tensor.nbytes < self.small:
            return tensor
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
    """A tensor in host memory. `before` is the one that was put there before it, and is wanted after it."""

    def __init__(
        self, tensor: torch.Tensor, before: 'weakref.ref[_Held] | None', stream: torch.cuda.Stream | None
    ) -> None:
        self.before, self.device, self._stream = before, tensor.device, stream
        self._back: torch.Tensor | None = None
        tensor = tensor.detach()
        self._host = torch.empty_like(tensor, device='cpu', pin_memory=stream is not None)
        if stream is None:
            self._host.copy_(tensor)
            return
        stream.wait_stream(torch.cuda.current_stream(tensor.device))
        with torch.cuda.stream(stream):
            self._host.copy_(tensor, non_blocking=True)
        tensor.record_stream(stream)  # not to be given away before it is copied

    def fetch(self) -> None:
        """Begin to copy it back."""
        if self._back is not None:
            return
        self._back = torch.empty_like(self._host, device=self.device, pin_memory=False)
        if self._stream is None:
            self._back.copy_(self._host)
            return
        # The memory may be one that work on the current stream still reads.
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            self._back.copy_(self._host, non_blocking=True)
            self._copied = self._stream.record_event()
        self._back.record_stream(self._stream)

    def take(self) -> torch.Tensor:
        """Return the tensor on its device; it is copied again for each call."""
        self.fetch()
        if self._stream is not None:
            torch.cuda.current_stream(self.device).wait_event(self._copied)
        tensor, self._back = self._back, None
        return tensor
