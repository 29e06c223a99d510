"""Where a layer holds its tensors, so that others can take their places for a call."""

from collections.abc import Iterator
from typing import Any

import torch

# What holds a tensor, under which name, and the tensor.
Place = tuple[dict, str, torch.Tensor]


def tensors_of(module: torch.nn.Module) -> Iterator[Place]:
    """Yield where the tensors of a layer are held, under which name, and they; what hangs on one comes before it."""
    for part in module.modules():
        for held in (part._parameters, part._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    yield from _hanging(tensor)
                    yield held, name, tensor


def _hanging(thing: Any) -> Iterator[Place]:
    """Yield the same of what bitsandbytes needs to read a weight."""
    for name, other in vars(thing).items():
        if isinstance(other, torch.Tensor):
            yield vars(thing), name, other
        elif type(other).__module__.startswith('bitsandbytes'):
            yield from _hanging(other)


def put(own: list[Place], weights: list[torch.Tensor]) -> None:
    """Put `weights` in the places of a layer's own; what hangs on these hangs on those too."""
    for (held, name, tensor), other in zip(own, weights, strict=True):
        for key, thing in vars(tensor).items():
            vars(other).setdefault(key, thing)
        held[name] = other
