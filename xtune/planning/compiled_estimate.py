"""Compiled layers counted without compiling them: what they keep and take is read from the graphs that would be.

The halves of a layer's graph, forward and backward, are those that torch.compile makes: its decompositions, its passes
over the joint graph, and its partitioner, which decides what is kept.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.fx import Node

from ..optimizations.activation_checkpointing import keep, recompute
from .fusion import Graph, root, value
from .internals import halved, takes_a_list, tree_flatten, tree_unflatten
from .layer_tensors import put, tensors_of
from .live_bytes import LiveBytes

# What tracing raises where a layer decides by values, or changes its own weights.
_NO_GRAPH = (RuntimeError, AssertionError, TypeError, ValueError, AttributeError)


class CountedGraphs:
    """Stands for what is compiled, in the place of `compiling.compiled`; one for layers of the same kind.

    `meter` is what counts; set it before anything is called.
    """

    meter: LiveBytes

    def __init__(self) -> None:
        self._made: dict[tuple, Callable | None] = {}

    def stand_in(self, function: Callable) -> Callable:
        """Return what stands for the compiled `function`: a way of layers, or one of tensors without gradients."""
        if function in (keep, recompute):
            return partial(self._layer, function)
        return partial(self._fused, function)

    def _fused(self, function: Callable, *args: torch.Tensor) -> Any:
        """Return what `function` returns; what is between is never in memory."""
        with self.meter.paused():
            found = function(*args)
        leaves, spec = tree_flatten(found)
        return tree_unflatten([torch.empty_like(leaf) for leaf in leaves], spec)

    def _layer(self, way: Callable, layer: Callable, *args: Any, **kwargs: Any) -> Any:
        leaves, spec = tree_flatten((args, kwargs))
        places = [n for n, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        given = [leaves[n] for n in places]
        own = list(tensors_of(layer.__self__))
        weights = [tensor for *_, tensor in own]
        rest = tuple(repr(leaf) for leaf in leaves if not isinstance(leaf, torch.Tensor))
        key = (way, _kind(layer.__self__), rest, *map(_look, weights), *map(_look, given))
        if key not in self._made:

            def call(weights: list[torch.Tensor], tensors: list[torch.Tensor]) -> Any:
                put(own, weights)
                for place, tensor in zip(places, tensors, strict=True):
                    leaves[place] = tensor
                args, kwargs = tree_unflatten(leaves, spec)
                return layer(*args, **kwargs)

            self._made[key] = self._traced(call, weights, given, way is recompute)
            put(own, weights)
            leaves.clear(), own.clear()  # `call` stays, and would hold them
        made = self._made[key]
        return way(layer, *args, **kwargs) if made is None else made(weights, given)

    def _traced(self, call: Callable, weights: list, given: list, recomputed: bool) -> Callable | None:
        """Return what stands for the compiled `call`; None: it has no graph."""
        freed: set[str] = set()
        made = halved(
            call,
            forward=lambda module: self._half(Graph(module)),
            backward=lambda module: self._half(Graph(module, freed)),
            seen=lambda module: freed.update(Graph(module).made()),
            recomputed=recomputed,
        )
        # Whoever counts what is saved would count this call too.
        with self.meter.paused(), saved_tensors_hooks(_same, _same):
            try:
                # Graphs hold what they were made with, which would count as kept by the layer.
                made(weights, [torch.empty_like(t).requires_grad_(t.requires_grad) for t in given])
            except _NO_GRAPH:
                return None
        return made

    def _half(self, graph: Graph) -> Callable:
        """Return what stands for a half of a function's graph: a function of a list, which it empties."""
        looked_at = {root(node) for node in graph.returned if isinstance(node, Node)}

        def run(given: list[Any]) -> list[Any]:
            self.meter.took(graph.peak)
            known = {node: one for node, one in zip(graph.inputs, given, strict=True) if node in looked_at}
            given.clear()
            return [_result(node, known) for node in graph.returned]

        return takes_a_list(run)


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _look(tensor: torch.Tensor) -> tuple:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.requires_grad


def _kind(module: torch.nn.Module) -> tuple:
    """Return what else a layer's graph depends on: its parts, and the windows of its attention."""
    windows = (getattr(part, 'sliding_window', None) for part in module.modules())
    return repr(module), tuple(window for window in windows if isinstance(window, int))


def _result(node: Any, known: dict[Node, torch.Tensor]) -> Any:
    """Return a tensor like that of `node`; those that look at one memory share it."""
    wanted = value(node)
    if not isinstance(wanted, torch.Tensor):
        return wanted
    start = root(node)
    if start not in known:
        like = value(start)
        known[start] = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=like.device)
    if start is node:
        return known[node]
    return known[start].as_strided(wanted.shape, wanted.stride(), wanted.storage_offset())
