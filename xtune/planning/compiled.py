"""Compiled layers counted without compiling them: what they keep and take is read from the graphs that would be.

The halves of a layer's graph, forward and backward, are those that torch.compile makes: its decompositions, its passes
over the joint graph, and its partitioner, which decides what is kept. This is the one place that asks for them.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from functorch.compile import aot_function, min_cut_rematerialization_partition
from torch.autograd.graph import saved_tensors_hooks
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..models.recompute import keep, recompute
from .fusion import Graph, root, value
from .tracker import LiveBytes

# What tracing raises where a layer decides by values, or changes its own weights.
_NO_GRAPH = (RuntimeError, AssertionError, TypeError, ValueError, AttributeError, NotImplementedError)


def counted(function: Callable, meter: LiveBytes) -> Callable:
    """Return what stands for the compiled `function` where `meter` counts: a way of a layer, or one without weights."""
    if function is keep:
        return CountedLayers(meter)
    if function is recompute:
        kept = CountedLayers(meter)
        return lambda layer, *args, **kwargs: recompute(partial(kept, layer), *args, **kwargs)
    return partial(_fused, meter, function)


def _fused(meter: LiveBytes, function: Callable, *args: torch.Tensor) -> Any:
    """Return what `function` of tensors returns; what is between is never in memory."""
    with meter.paused():
        found = function(*args)
    leaves, spec = tree_flatten(found)
    return tree_unflatten([torch.empty_like(leaf) for leaf in leaves], spec)


class CountedLayers:
    """Calls layers whose tensors have no values as if they were compiled.

    Args:
        meter: Counts.
    """

    def __init__(self, meter: LiveBytes) -> None:
        self.meter = meter
        self._made: dict[tuple, Callable | None] = {}

    def __call__(self, layer: Callable, *args: Any, **kwargs: Any) -> Any:
        leaves, spec = tree_flatten((args, kwargs))
        places = [n for n, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        given = [leaves[n] for n in places]
        own = list(_tensors(layer.__self__))
        weights = [tensor for *_, tensor in own]
        key = (id(layer.__self__), *((t.shape, t.requires_grad) for t in given))
        if key not in self._made:

            def call(weights: list[torch.Tensor], tensors: list[torch.Tensor]) -> Any:
                _put(own, weights)
                for place, tensor in zip(places, tensors, strict=True):
                    leaves[place] = tensor
                args, kwargs = tree_unflatten(leaves, spec)
                return layer(*args, **kwargs)

            self._made[key] = self._traced(call, weights, given)
            _put(own, weights)
        made = self._made[key]
        return layer(*args, **kwargs) if made is None else made(weights, given)

    def _traced(self, call: Callable, weights: list[torch.Tensor], given: list[torch.Tensor]) -> Callable | None:
        """Return what stands for the compiled `call`; None: it has no graph."""
        made = self._function(call)
        # Recomputation counts what is saved, and this call saves things too.
        with self.meter.paused(), saved_tensors_hooks(_same, _same):
            try:
                made(weights, given)
            except _NO_GRAPH:
                import traceback; traceback.print_exc()
                return None
        return made

    def _function(self, call: Callable) -> Callable:
        freed: set[str] = set()

        def parted(joint: GraphModule, inputs: Any, **more: Any) -> tuple[GraphModule, GraphModule]:
            forward, backward = _parted(joint, inputs, **more)
            freed.update(Graph(forward).made())
            return forward, backward

        return aot_function(
            call,
            fw_compiler=lambda module, _: self._half(Graph(module)),
            bw_compiler=lambda module, _: self._half(Graph(module, freed)),
            partition_fn=parted,
            decompositions=_decompositions(),
        )

    def _half(self, graph: Graph) -> Callable:
        """Return what stands for a half of a function's graph: a function of a list, which it empties."""
        looked_at = {root(node) for node in graph.returned if isinstance(node, Node)}

        def run(given: list[Any]) -> list[Any]:
            self.meter.took(graph.peak)
            known = {node: one for node, one in zip(graph.inputs, given, strict=True) if node in looked_at}
            given.clear()
            return [_result(node, known) for node in graph.returned]

        run._boxed_call = True
        return run


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


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


def _tensors(module: torch.nn.Module) -> Iterator[tuple[dict, str, torch.Tensor]]:
    """Yield where the tensors of a layer are held, under which name, and they; what hangs on one comes before it."""
    for part in module.modules():
        for held in (part._parameters, part._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    yield from _hanging(tensor)
                    yield held, name, tensor


def _hanging(thing: Any) -> Iterator[tuple[dict, str, torch.Tensor]]:
    """Yield the same of what bitsandbytes needs to read a weight."""
    for name, other in vars(thing).items():
        if isinstance(other, torch.Tensor):
            yield vars(thing), name, other
        elif type(other).__module__.startswith('bitsandbytes'):
            yield from _hanging(other)


def _put(own: list[tuple[dict, str, torch.Tensor]], weights: list[torch.Tensor]) -> None:
    """Put `weights` in the places of a layer's own; what hangs on these hangs on those too."""
    for (held, name, tensor), other in zip(own, weights, strict=True):
        for key, thing in vars(tensor).items():
            vars(other).setdefault(key, thing)
        held[name] = other


def _decompositions() -> dict:
    from torch._inductor.decomposition import select_decomp_table

    return select_decomp_table()


def _parted(joint: GraphModule, inputs: Any, **more: Any) -> tuple[GraphModule, GraphModule]:
    from torch._guards import detect_fake_mode
    from torch._inductor.fx_passes.joint_graph import joint_graph_passes
    from torch._inductor.virtualized import V

    with V.set_fake_mode(detect_fake_mode(inputs)):
        joint = joint_graph_passes(joint)
        return min_cut_rematerialization_partition(joint, inputs, compiler='inductor', **more)
