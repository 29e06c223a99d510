"""Layers as CUDA graphs, where a GPU would wait for Python otherwise.

A step of a model of 1.5B starts ten thousand kernels one by one, which takes Python 0.1 to 0.2 s. Where the GPU is
done sooner, the layers' kernels are recorded, once for each shape of a micro-batch, and started together from then on.
Layers in a row that take the same tensors beside the hidden states are one piece: the call of its first layer gives
what the last one would return, and the others hand that on.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ...ops.compilation import Compiled
from ...utils.device import random_numbers
from ..activation_checkpointing import keep
from .host_bound import Waits
from .partition import Chain, record_all
from .pytree import Strange, form
from .segment import Piece, Recorder, distinct

# Shapes that are recorded at most.
SHAPES = 8
# Bytes that the gradients of trained weights take at most, which each shape has anew; one shape may take more.
GRADIENTS = 2 * 2**30


def keeps(way: Callable) -> bool:
    """Tell whether layers that are called so can be recorded.

    Those that recompute cannot: they ask for the state of the random numbers, which no graph can answer.
    """
    return isinstance(way, Compiled) and way.plain is keep and not way.broken


class CudaGraphRunner:
    """The layers of a model, which tell it of their calls in training; see the module.

    Args:
        layers: The decoder layers, each of which has a `way`.
        device: Where they compute.
        recorder: Records functions.
        takes: Tells whether layers that are called in a way can be recorded.

    `idle` are the bytes that graphs hold while they do not run, of which the allocator does not tell. `said`: the user
    knows that layers run as graphs; set it where no run resumes from here.
    """

    def __init__(
        self,
        layers: Sequence[torch.nn.Module],
        device: torch.device,
        recorder: Recorder,
        takes: Callable[[Callable], bool] = keeps,
    ) -> None:
        self._layers, self._device, self._recorder, self._takes = list(layers), device, recorder, takes
        self._number = {id(layer): number for number, layer in enumerate(layers)}
        self._modules = [module for layer in layers for module in layer.modules()]
        self._known: dict[Hashable, dict[int, Piece]] = {}  # by shape, then by first layer; empty: not recorded
        self._waits = Waits()  # of shapes that are not recorded
        self._wanted: dict[Hashable, list[Piece] | None] = {}  # what to record after this step
        self._key: Hashable = None
        self._playing: dict[int, Piece] = {}
        self._chain: Chain | None = None
        self._hidden: torch.Tensor | None = None
        self._on = self._broken = self.said = False
        self.idle = 0
        for layer in layers:
            layer.graphs = self

    def __len__(self) -> int:
        """How many shapes are recorded."""
        return sum(map(bool, self._known.values()))

    @contextmanager
    def on(self) -> Iterator[None]:
        """Return a context, that of a training step, in which layers may run as graphs."""
        self._on = not self._broken
        self._waits.begin()
        self._owe_nothing()  # of a step that failed
        try:
            yield
        finally:
            self._on, self._playing, self._chain, self._hidden = False, {}, None, None

    def call(self, layer: torch.nn.Module, run: Callable, args: tuple, kwargs: dict) -> Any:
        """Return what `layer` returns, `run` being its call without a way."""
        if not self._on:
            return layer.way(run, *args, **kwargs)
        number = self._number[id(layer)]
        if number == 0:
            self._begin((args, kwargs))
        if self._playing:
            if number in self._playing:
                self._hidden = self._playing[number]((args, kwargs))
            return self._hidden
        made = layer.way(run, *args, **kwargs)
        if self._chain is not None:
            self._chain.add(run, (args, kwargs), made)
            if number == len(self._layers) - 1:
                self._wanted[self._key], self._chain = self._chain.pieces(), None
        return made

    def note(self, waited: float) -> None:
        """Take note of how long the process waited for the GPU at the end of the last step; record what is to be.

        Args:
            waited: As a share of what a micro-batch took: it runs ahead of the GPU by less than that.
        """
        self._waits.end(waited)
        wanted, self._wanted = self._wanted, {}
        for key, pieces in wanted.items():
            if self._broken:
                break
            self._known[key] = self._recorded(pieces or [])
            if not self._known.get(key):
                continue
            self.idle = max(self.idle, self._recorder.idle())  # one at a time
            if not self.said:
                self.said = True
                print('note: the GPU waits for Python, so from here on layers run as CUDA graphs', flush=True)

    def forget(self) -> bool:
        """Drop what is recorded, for layers are called in another way or memory is needed; return whether there was
        anything."""
        there = len(self) > 0
        self._known, self._wanted, self.idle = {}, {}, 0
        self._playing, self._chain, self._hidden = {}, None, None  # a step that failed may be under way
        self._waits = Waits()
        self._recorder.renew()
        return there

    def stop(self) -> bool:
        """Record nothing any more, and drop what is recorded; return whether there was anything."""
        self._broken = True
        return self.forget()

    def _begin(self, arguments: tuple[tuple, dict]) -> None:
        """Choose how the layers run on this micro-batch, from the arguments of the first."""
        self._playing, self._chain = {}, None
        if any(piece.owes for piece in self._pieces()):
            return  # a backward pass is to come that needs the memory
        if any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in self._modules):
            return
        try:
            self._key = form(arguments), len(distinct(arguments))
        except Strange:
            return
        if self._key in self._known:
            self._playing = self._known[self._key]
            return
        self._waits.saw(self._key)
        if not self._waits.often(self._key):
            return
        room = len(self._known.keys() | self._wanted.keys() | {self._key}) <= self._most()
        if room and all(self._takes(layer.way) for layer in self._layers):
            self._chain = Chain(self._layers)

    def _owe_nothing(self) -> None:
        for piece in self._pieces():
            piece.owes = False

    def _pieces(self) -> Iterator[Piece]:
        return (piece for pieces in self._known.values() for piece in pieces.values())

    def _most(self) -> int:
        trained = sum(p.nbytes for layer in self._layers for p in layer.parameters() if p.requires_grad)
        return max(1, min(SHAPES, GRADIENTS // max(trained, 1)))

    def _recorded(self, pieces: list[Piece]) -> dict[int, Piece]:
        back = random_numbers(self._device)  # the trial draws some
        try:
            record_all(pieces, self._recorder)
        except RuntimeError as error:  # memory that runs out is one
            self.stop()
            reason = str(error).strip().partition('\n')[0]
            print(f'note: the layers cannot run as CUDA graphs ({reason[:200]}); they go on without', flush=True)
            return {}
        finally:
            back()
        return {piece.first: piece for piece in pieces}
