"""The layers' calls in a forward pass, as pieces to record."""

from collections.abc import Callable
from typing import Any

import torch

from .pytree import replaced
from .segment import Call, Piece, Place, Recorder, distinct


class Chain:
    """The calls of all layers, in order, as long as each takes what the one before returned.

    Args:
        layers: The layers.
    """

    def __init__(self, layers: list[torch.nn.Module]) -> None:
        self._layers = layers
        self._calls: list[tuple[Callable, tuple[tuple, dict], Any]] = []

    def add(self, run: Callable, arguments: tuple[tuple, dict], made: Any) -> None:
        """Add the call of the next layer, `run` being its call without a way."""
        self._calls.append((run, arguments, made))

    def pieces(self) -> list[Piece] | None:
        """Return the pieces; None: the calls are no chain."""
        if len(self._calls) != len(self._layers):
            return None
        before: torch.Tensor | None = None
        for _, (args, _), made in self._calls:
            if not (args and isinstance(args[0], torch.Tensor) and isinstance(made, torch.Tensor)):
                return None
            if before is not None and args[0] is not before:
                return None
            before = made
        starts = self._starts()
        return [self._piece(*ends) for ends in zip(starts, [*starts[1:], len(self._calls)], strict=True)]

    def _starts(self) -> list[int]:
        """Return the numbers of the layers that need a tensor which the piece before did not begin with."""
        starts, there = [], set()
        for number, (_, arguments, _) in enumerate(self._calls):
            _, *others = map(id, distinct(arguments))
            if not there.issuperset(others) or not starts:
                starts.append(number)
                there = set(others)
        return starts

    def _piece(self, first: int, end: int) -> Piece:
        inputs = distinct(self._calls[first][1])
        places = {id(tensor): Place(number) for number, tensor in enumerate(inputs)}
        calls, parameters = [], {}
        for layer, (run, arguments, made) in zip(self._layers[first:end], self._calls[first:end], strict=True):
            calls.append(Call(run, layer.way, replaced(arguments, places)))
            places[id(made)] = Place(0)
            parameters |= {id(p): p for p in layer.parameters() if p.requires_grad}
        own = [tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in inputs]
        return Piece(first, calls, own, list(parameters.values()))


def record_all(pieces: list[Piece], recorder: Recorder) -> None:
    """Record the forward passes of `pieces` in order, then the backward passes from the last to the first.

    Raises:
        RuntimeError: They cannot be recorded, or memory runs out.
    """
    for strict in (False, True):
        with recorder.trial(strict):
            _run(pieces, lambda function: (function(), lambda: None))
    for piece in pieces:
        piece.drop()
    _run(pieces, recorder)


def _run(pieces: list[Piece], record: Callable) -> None:
    hidden = None
    for piece in pieces:
        if hidden is not None:
            piece.inputs[0] = hidden.detach().requires_grad_(piece.inputs[0].requires_grad)
        hidden = piece.record_forward(record)
    for piece in reversed(pieces):
        piece.record_backward(record)
