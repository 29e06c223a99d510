"""A run of consecutive layers captured as a forward and a backward CUDA graph.

A graph reads and writes the same memory at each replay: inputs are copied there, and outputs are valid until the next
replay.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ..layer_call import LayerCall
from .pytree import distinct_tensors, map_leaves

# What a captured function returns.
Tensors = Sequence[torch.Tensor | None]
# Captures a function; returns its result, and a function that replays it with results in the same tensors.
Capture = Callable[[Callable[[], Tensors]], tuple[Tensors, Callable[[], None]]]


class GraphCapture(Protocol):
    """Captures functions as graphs."""

    def warmup(self, strict: bool) -> AbstractContextManager:
        """Return a context in which to call the functions before they are captured; the last time in a strict one,
        which raises where something cannot be captured."""

    def scratch_bytes(self) -> int:
        """Return the bytes that the graphs captured since the last warm-up use besides their tensors."""

    def new_pool(self) -> None:
        """Use another memory pool, because no captured graph is needed any more."""

    def __call__(self, function: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], None]]:
        """Call `function`; return its result, and a function that replays it with results in the same tensors."""


@dataclass(frozen=True)
class InputSlot:
    """Stands for the input of a segment with this index; 0 are the hidden states."""

    index: int


@dataclass(frozen=True)
class RecordedCall:
    """A layer's call: the layer without its `layer_call`, the `layer_call`, and the arguments with an `InputSlot` in
    place of each tensor."""

    layer: Callable
    layer_call: LayerCall
    arguments: tuple[tuple, dict]

    def __call__(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        args, kwargs = map_leaves(
            lambda leaf: inputs[leaf.index] if isinstance(leaf, InputSlot) else leaf, self.arguments
        )
        return self.layer_call(self.layer, *args, **kwargs)


class Segment:
    """Calls of consecutive layers, each with the hidden states that the one before returned.

    Args:
        first: Index of the first call's layer.
        calls: The calls.
        inputs: Tensors of the first call: hidden states, then all others, with the values of one micro-batch.
        parameters: The trained parameters of all layers of the calls.

    Attributes:
        backward_pending: A backward pass is to come that needs the memory of the last forward pass.
    """

    def __init__(
        self, first: int, calls: list[RecordedCall], inputs: list[torch.Tensor], parameters: list[torch.nn.Parameter]
    ) -> None:
        self.first, self._calls, self.inputs, self.parameters = first, calls, inputs, parameters
        self.backward_pending = False
        self._trains = any(tensor.requires_grad for tensor in (*inputs, *parameters))

    def capture_forward(self, capture: Capture) -> torch.Tensor:
        """Capture the forward pass; return its output tensor."""
        (self._output,), self._replay_forward = capture(self._forward)
        self._grad_output = torch.zeros_like(self._output)
        return self._output

    def capture_backward(self, capture: Capture) -> None:
        """Capture the backward pass, if there is one, after the forward passes of all segments."""
        if not self._trains:
            return
        grads, self._replay_backward = capture(self._backward)
        remaining = iter(grads)
        self._grads = [next(remaining) if t.requires_grad else None for t in (*self.inputs, *self.parameters)]

    def __call__(self, arguments: Any) -> torch.Tensor:
        """Return the last layer's output for these arguments of the first one."""
        return _Replay.apply(self, *distinct_tensors(arguments), *self.parameters)

    def replay_forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the output for inputs with other values."""
        for captured, tensor in zip(self.inputs, inputs, strict=True):
            _copy(captured, tensor)
        self._replay_forward()
        self.backward_pending = self._trains
        return self._output.detach()

    def replay_backward(self, grad_output: torch.Tensor) -> list[torch.Tensor | None]:
        """Return the gradients of the inputs and the parameters."""
        _copy(self._grad_output, grad_output)
        self._replay_backward()
        self.backward_pending = False
        return [None if grad is None else grad.detach() for grad in self._grads]

    def discard_warmup(self) -> None:
        """Drop the tensors of the warm-up calls."""
        self._output = self._grad_output = self._replay_forward = self._replay_backward = None
        self._grads = []

    def _forward(self) -> list[torch.Tensor]:
        hidden = self.inputs[0]
        for call in self._calls:
            hidden = call([hidden, *self.inputs[1:]])
        self._output_with_graph = hidden
        return [hidden.detach()]

    def _backward(self) -> Tensors:
        needed = [tensor for tensor in (*self.inputs, *self.parameters) if tensor.requires_grad]
        output, self._output_with_graph = self._output_with_graph, None
        return torch.autograd.grad(output, needed, self._grad_output, allow_unused=True)


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, segment: Segment, *tensors: torch.Tensor) -> torch.Tensor:
        ctx.segment = segment
        return segment.replay_forward(tensors[: len(segment.inputs)])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple:
        return None, *ctx.segment.replay_backward(grad_output)


@torch.no_grad()
def _copy(destination: torch.Tensor, source: torch.Tensor) -> None:
    if destination.data_ptr() != source.data_ptr():
        destination.copy_(source)
