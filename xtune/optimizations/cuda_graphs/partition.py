"""The layers' calls of one forward pass, partitioned into segments to capture."""

from collections.abc import Callable
from typing import Any

import torch

from .pytree import distinct_tensors, map_leaves
from .segment import Capture, GraphCapture, InputSlot, RecordedCall, Segment


class ForwardTrace:
    """The calls of all layers in order.

    Args:
        layers: The layers.
    """

    def __init__(self, layers: list[torch.nn.Module]) -> None:
        self._layers = layers
        self._calls: list[tuple[Callable, tuple[tuple, dict], Any]] = []

    def add(self, forward: Callable, arguments: tuple[tuple, dict], output: Any) -> None:
        """Add the call of the next layer; `forward` calls it without its `layer_call`."""
        self._calls.append((forward, arguments, output))

    def segments(self) -> list[Segment] | None:
        """Return the segments; None: some layer does not take the output of the one before as hidden states."""
        if len(self._calls) != len(self._layers):
            return None
        hidden: torch.Tensor | None = None
        for _, (args, _), output in self._calls:
            if not (args and isinstance(args[0], torch.Tensor) and isinstance(output, torch.Tensor)):
                return None
            if hidden is not None and args[0] is not hidden:
                return None
            hidden = output
        starts = self._starts()
        return [self._segment(*ends) for ends in zip(starts, [*starts[1:], len(self._calls)], strict=True)]

    def _starts(self) -> list[int]:
        """Return the indices of layers that need a tensor that the first layer of the segment before did not get."""
        starts, available = [], set()
        for index, (_, arguments, _) in enumerate(self._calls):
            _, *others = map(id, distinct_tensors(arguments))
            if not available.issuperset(others) or not starts:
                starts.append(index)
                available = set(others)
        return starts

    def _segment(self, first: int, end: int) -> Segment:
        inputs = distinct_tensors(self._calls[first][1])
        slots = {id(tensor): InputSlot(index) for index, tensor in enumerate(inputs)}

        def slot_of(leaf: Any) -> Any:
            return slots[id(leaf)] if isinstance(leaf, torch.Tensor) else leaf

        calls, parameters = [], {}
        for layer, (forward, arguments, output) in zip(self._layers[first:end], self._calls[first:end], strict=True):
            calls.append(RecordedCall(forward, layer.layer_call, map_leaves(slot_of, arguments)))
            slots[id(output)] = InputSlot(0)
            parameters |= {id(p): p for p in layer.parameters() if p.requires_grad}
        captured = [tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in inputs]
        return Segment(first, calls, captured, list(parameters.values()))


def capture_all(segments: list[Segment], capture: GraphCapture) -> None:
    """Capture the forward passes of `segments` in order, then the backward passes from the last to the first.

    Raises:
        RuntimeError: They cannot be captured, or memory runs out.
    """
    for strict in (False, True):
        with capture.warmup(strict):
            _run(segments, lambda function: (function(), lambda: None))
    for segment in segments:
        segment.discard_warmup()
    _run(segments, capture)


def _run(segments: list[Segment], capture: Capture) -> None:
    hidden = None
    for segment in segments:
        if hidden is not None:
            segment.inputs[0] = hidden.detach().requires_grad_(segment.inputs[0].requires_grad)
        hidden = segment.capture_forward(capture)
    for segment in reversed(segments):
        segment.capture_backward(capture)
