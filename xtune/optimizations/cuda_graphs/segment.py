"""Layers in a row whose forward pass and backward pass are recorded, and run again with other values.

What is recorded reads and writes the same memory each time: inputs are copied there, and outputs are good until it runs
again.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ..activation_checkpointing import Way
from .pytree import leaves

# What a recorded function returns.
Tensors = Sequence[torch.Tensor | None]


class Recorder(Protocol):
    """Records functions."""

    def trial(self, strict: bool) -> AbstractContextManager:
        """Return a context in which the functions are to be called once before they are recorded, at last a strict one,
        which refuses what cannot be recorded."""

    def idle(self) -> int:
        """Return the bytes that what was recorded since the last trial computes in, beside tensors."""

    def renew(self) -> None:
        """Take note that nothing recorded is needed any more."""

    def __call__(self, function: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], None]]:
        """Call `function`; return what it returns, and what does so again, with results in the same tensors."""


@dataclass(frozen=True)
class Place:
    """Stands for the input of a piece with this number; 0 are the hidden states."""

    number: int


@dataclass(frozen=True)
class Call:
    """A layer's call: the layer as it is without a way, the way, and arguments with a Place for each tensor."""

    layer: Callable
    way: Way
    arguments: tuple[tuple, dict]

    def __call__(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        args, kwargs = _filled(self.arguments, inputs)
        return self.way(self.layer, *args, **kwargs)


class Piece:
    """Some calls in a row, each with the hidden states that the one before returned.

    Args:
        first: Number of the first call's layer.
        calls: The calls.
        inputs: What the first one takes: hidden states, then all other tensors. Values of one micro-batch.
        parameters: Those that are trained, of all layers of the calls.
    """

    def __init__(
        self, first: int, calls: list[Call], inputs: list[torch.Tensor], parameters: list[torch.nn.Parameter]
    ) -> None:
        self.first, self._calls, self.inputs, self.parameters = first, calls, inputs, parameters
        self.owes = False  # a backward pass, which needs what the last forward pass left
        self._trains = any(tensor.requires_grad for tensor in (*inputs, *parameters))

    def record_forward(self, record: Callable) -> torch.Tensor:
        """Record the forward pass; return where its output will be."""
        (self._out,), self._again_forward = record(self._forward)
        self._slope = torch.zeros_like(self._out)
        return self._out

    def record_backward(self, record: Callable) -> None:
        """Record the backward pass, if there is one, after all pieces' forward passes."""
        if not self._trains:
            return
        slopes, self._again_backward = record(self._backward)
        left = iter(slopes)
        self._slopes = [next(left) if t.requires_grad else None for t in (*self.inputs, *self.parameters)]

    def __call__(self, arguments: Any) -> torch.Tensor:
        """Return the last layer's output for these arguments of the first one."""
        return _Again.apply(self, *distinct(arguments), *self.parameters)

    def run_forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the output for inputs with other values."""
        for place, tensor in zip(self.inputs, inputs, strict=True):
            _copy(place, tensor)
        self._again_forward()
        self.owes = self._trains
        return self._out.detach()

    def run_backward(self, slope: torch.Tensor) -> list[torch.Tensor | None]:
        """Return the gradients of inputs and parameters for that of the output."""
        _copy(self._slope, slope)
        self._again_backward()
        self.owes = False
        return [None if found is None else found.detach() for found in self._slopes]

    def drop(self) -> None:
        """Forget what recording returned."""
        self._out = self._slope = self._again_forward = self._again_backward = None
        self._slopes = []

    def _forward(self) -> list[torch.Tensor]:
        hidden = self.inputs[0]
        for call in self._calls:
            hidden = call([hidden, *self.inputs[1:]])
        self._made = hidden
        return [hidden.detach()]

    def _backward(self) -> Tensors:
        wanted = [tensor for tensor in (*self.inputs, *self.parameters) if tensor.requires_grad]
        made, self._made = self._made, None
        return torch.autograd.grad(made, wanted, self._slope, allow_unused=True)


class _Again(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, piece: Piece, *tensors: torch.Tensor) -> torch.Tensor:
        ctx.piece = piece
        return piece.run_forward(tensors[: len(piece.inputs)])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple:
        return None, *ctx.piece.run_backward(slope)


def distinct(given: Any) -> list[torch.Tensor]:
    """Return the tensors in `given`, each once."""
    return list({id(tensor): tensor for tensor in leaves(given)}.values())


def _filled(given: Any, inputs: Sequence[torch.Tensor]) -> Any:
    if isinstance(given, Place):
        return inputs[given.number]
    if isinstance(given, dict):
        return {name: _filled(part, inputs) for name, part in given.items()}
    if isinstance(given, (tuple, list)):
        return type(given)(_filled(part, inputs) for part in given)
    return given


@torch.no_grad()
def _copy(place: torch.Tensor, tensor: torch.Tensor) -> None:
    if place.data_ptr() != tensor.data_ptr():
        place.copy_(tensor)
