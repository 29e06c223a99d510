"""What a compiled graph has in memory at most: operations on single numbers are fused into those that need them.

Of a graph's nodes those take memory whose results are written: products, attention, sums, what these read, and what
the graph returns. Everything else is computed where it is read, so what it reads lives until then. Results that need
the same are written by one kernel, so all it reads and writes is there at one time.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from operator import getitem
from typing import Any

import torch
from torch.fx import GraphModule, Node

from .internals import is_operation, name_of, tree_leaves
from .live_bytes import GRAIN, inside

_aten = torch.ops.aten
# Made where they are read, though they are no operations on single numbers.
_MADE = frozenset(['full', 'iota', 'arange', 'scalar_tensor', 'inductor_seeds', 'inductor_lookup_seed'])
_MADE_LIKE = frozenset(['inductor_random', 'expand', 'full_like'])


def value(node: Any) -> Any:
    """Return what a node gives, as tensors without values."""
    return node.meta.get('val') if isinstance(node, Node) else node


def size(found: Any) -> int:
    """Return the bytes of the tensors in `found`, if each has memory of its own."""
    tensors = [leaf for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor)]
    return sum(-(-t.numel() * t.element_size() // GRAIN) * GRAIN for t in tensors)


def root(node: Node) -> Node:
    """Return the node whose memory `node` looks at; itself, if it has its own."""
    while _is_view(node):
        node = node.args[0]
    return node


def _owner(node: Node) -> Node:
    """Return the node that writes what `node` looks at or is a part of."""
    while _is_view(node) or node.target is getitem:
        node = node.args[0]
    return node


def _is_view(node: Node) -> bool:
    if node.op != 'call_function' or not node.args or not isinstance(node.args[0], Node):
        return False
    if not isinstance(value(node), torch.Tensor):
        return False
    if getattr(node.target, 'is_view', False):
        return True
    return node.target in (_aten._unsafe_view.default, _aten.reshape.default, _aten.lift_fresh_copy.default)


def _is_fused(node: Node) -> bool:
    """Tell whether the result of `node` is computed where it is read, as far as the node itself says."""
    if node.op != 'call_function' or not is_operation(node.target):
        return False
    name = name_of(node.target).partition('::')[2]
    return torch.Tag.pointwise in node.target.tags or name in _MADE | _MADE_LIKE or name == 'convert_element_type'


def _is_product(node: Node) -> bool:
    """Tell whether `node` is a kernel of its own, which reads from memory."""
    if node.op != 'call_function' or _is_view(node) or _is_fused(node):
        return False
    return not is_operation(node.target) or torch.Tag.reduction not in node.target.tags


class Graph:
    """A graph and what its run has in memory.

    Args:
        module: One half of a compiled function.
        freed: The names of what it is given that nobody else holds.
    """

    def __init__(self, module: GraphModule, freed: Collection[str] = ()) -> None:
        self.nodes = list(module.graph.nodes)
        self.inputs = [node for node in self.nodes if node.op == 'placeholder']
        self.returned: list[Any] = list(self.nodes[-1].args[0])
        self.own = {_owner(node) for node in self.returned if isinstance(node, Node)} - set(self.inputs)
        self._freed = {node for node in self.inputs if node.name in freed}
        self.peak = self._peak()

    def made(self) -> set[str]:
        """Return the names of what it returns and has made itself."""
        return {node.name for node in self.returned if isinstance(node, Node) and _owner(node) in self.own}

    def _written(self) -> set[Node]:
        """Return the nodes whose results lie in memory."""
        found = set(self.own)
        for node in self.nodes:
            if node.op != 'call_function' or _owner(node) is not node:
                continue
            if not _is_fused(node):
                found.add(node)
            if _is_product(node):
                found |= {_owner(one) for one in node.all_input_nodes}
        return {node for node in found if node.op == 'call_function'}

    def _read(self, node: Node, written: set[Node]) -> Iterator[Node]:
        """Yield the nodes in memory that are read when `node` is written."""
        waiting, seen = list(node.all_input_nodes), set()
        while waiting:
            one = _owner(waiting.pop())
            if one in seen:
                continue
            seen.add(one)
            if one in written or one.op == 'placeholder':
                yield one
            else:
                waiting += one.all_input_nodes

    def _peak(self) -> int:
        """Return the most bytes that are there beyond those at the begin."""
        written = self._written()
        reads = {node: set(self._read(node, written)) for node in self.nodes if node in written}
        readers = Counter(one for read in reads.values() for one in read)
        kept = self.own | (set(self.inputs) - self._freed)
        waiting, done = readers.copy(), set(self.inputs)
        live = peak = 0
        for node in reads:
            if node in done:
                continue
            kernel = _kernel(node, reads, done)
            done.update(kernel)
            ending = []
            for one in (one for each in kernel for one in reads[each]):
                waiting[one] -= 1
                if not waiting[one] and one not in kept:
                    ending.append(one)
            own, gone = sum(size(value(one)) for one in kernel), sum(size(value(one)) for one in ending)
            if _is_fused(node):  # a result takes the place of what nothing else reads
                place = min(own, sum(size(value(one)) for one in ending if readers[one] == 1))
                live, gone = live - place, gone - place
            live += own
            peak = max(peak, live + _inside(node))
            unread = sum(size(value(one)) for one in kernel if one not in readers and one not in kept)
            live -= gone + unread
        return peak


def _kernel(node: Node, reads: dict[Node, set[Node]], done: set[Node]) -> list[Node]:
    """Return what one kernel writes with `node`: operations on as many single numbers that read what it reads."""
    if not _is_fused(node):
        return [node]
    count = value(node).numel()
    return [
        one
        for one, read in reads.items()
        if one is node
        or (one not in done and _is_fused(one) and value(one).numel() == count and read <= done and read & reads[node])
    ]


def _inside(node: Node) -> int:
    return inside(node.target, tuple(map(value, node.args))) if is_operation(node.target) else 0
