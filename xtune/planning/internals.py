"""What plans need of torch beyond its public parts: the one place that names it. A test tells when it moves."""

from collections.abc import Callable
from typing import Any

import torch
from functorch.compile import aot_function, min_cut_rematerialization_partition
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

__all__ = [
    'FakeTensorMode',
    'TorchDispatchMode',
    'halved',
    'is_operation',
    'name_of',
    'storage_key',
    'takes_a_list',
    'tree_flatten',
    'tree_leaves',
    'tree_unflatten',
]


def storage_key(tensor: torch.Tensor) -> int:
    """Return what tells the storage of `tensor` from others that are alive, also where it has no values."""
    return tensor.untyped_storage()._cdata


def is_operation(target: Any) -> bool:
    """Tell whether the target of a node, or what a mode is called with, is an operation with a schema."""
    return isinstance(target, torch._ops.OpOverload)


def name_of(operation: Any) -> str:
    """Return the name of an operation, such as `aten::add`."""
    return operation._schema.name


def takes_a_list(function: Callable[[list[Any]], list[Any]]) -> Callable:
    """Mark `function`, which stands for a graph, as one that takes a list and may empty it."""
    function._boxed_call = True
    return function


def halved(
    function: Callable,
    forward: Callable[[GraphModule], Callable],
    backward: Callable[[GraphModule], Callable],
    seen: Callable[[GraphModule], None],
    recomputed: bool,
) -> Callable:
    """Return `function` with its graph's halves, as torch.compile makes them, put in the hands of what stands for them.

    Args:
        function: Of trees of tensors; traced when it is first called.
        forward: Makes what stands for the forward half, as `takes_a_list` marks it.
        backward: The same for the backward half.
        seen: Is called with the forward half before either.
        recomputed: The forward half is computed again in the backward one, as within `checkpoint`.
    """
    from torch._inductor.decomposition import select_decomp_table

    def parted(joint: GraphModule, inputs: Any, **more: Any) -> tuple[GraphModule, GraphModule]:
        halves = _parted(joint, inputs, recomputed, **more)
        seen(halves[0])
        return halves

    return aot_function(
        function,
        fw_compiler=lambda module, _: forward(module),
        bw_compiler=lambda module, _: backward(module),
        partition_fn=parted,
        decompositions=select_decomp_table(),
    )


def _parted(joint: GraphModule, inputs: Any, recomputed: bool, **more: Any) -> tuple[GraphModule, GraphModule]:
    from torch._guards import detect_fake_mode
    from torch._inductor.fx_passes.joint_graph import joint_graph_passes
    from torch._inductor.virtualized import V

    if recomputed:
        _mark(joint)
    with V.set_fake_mode(detect_fake_mode(inputs)):
        joint = joint_graph_passes(joint)
        return min_cut_rematerialization_partition(joint, inputs, compiler='inductor', **more)


def _mark(joint: GraphModule) -> None:
    """Mark the forward half as torch.compile marks what is within `checkpoint`."""
    from torch.utils.checkpoint import CheckpointPolicy

    later = set()
    for node in joint.graph.nodes:
        if 'tangents' in node.name or later.intersection(node.all_input_nodes):
            later.add(node)
        elif node.op == 'call_function':
            node.meta['recompute'], node.meta['ac_graph_id'] = CheckpointPolicy.PREFER_RECOMPUTE, 0
