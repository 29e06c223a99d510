"""Count the bytes of all tensors alive, operation by operation, whether they hold values or not.

Under FakeTensorMode a training step of any size runs on any machine: tensors have shapes and types and no memory. What
is alive at each moment is then known without the GPU that the run is meant for.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .internals import TorchDispatchMode, name_of, storage_key, tree_leaves

# The allocator of CUDA hands out multiples of this.
GRAIN = 512
_aten = torch.ops.aten


class LiveBytes(TorchDispatchMode):
    """Counts the storages made while it is entered.

    Tensors without values have none to ask for: where one is asked, a number is 1, and two tensors are equal if the
    same kind of operation wrote both.

    Args:
        without_values: Whether the tensors are fake.
        grain: Bytes that each storage is rounded up to a multiple of.
    """

    def __init__(self, without_values: bool = False, grain: int = GRAIN) -> None:
        super().__init__()
        self.without_values, self.grain = without_values, grain
        self.now = self.peak = 0
        self._written_by: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        answer = self._answer(func, args) if self.without_values else None
        out = func(*args, **(kwargs or {})) if answer is None else answer
        self.took(inside(func, args))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._note(leaf, None if func.is_view else func)
        return out

    def took(self, more: int) -> None:
        """Note that something which is not seen here took `more` bytes for a while."""
        self.peak = max(self.peak, self.now + more)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Return a context in which nothing is counted; nothing else may be entered between it and this."""
        self.__exit__(None, None, None)
        try:
            yield
        finally:
            self.__enter__()

    def _note(self, tensor: torch.Tensor, func: Any) -> None:
        storage, key = tensor.untyped_storage(), storage_key(tensor)
        if key not in self._written_by:
            size = -(-storage.nbytes() // self.grain) * self.grain
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, key, size).atexit = False
            self._written_by[key] = func
        elif func is not None:
            self._written_by[key] = func

    def _free(self, key: int, size: int) -> None:
        self.now -= size
        del self._written_by[key]

    def _answer(self, func: Any, args: tuple) -> Any:
        """Return what an operation gives that depends on values; None: it depends on shapes only."""
        if func is _aten._local_scalar_dense.default:
            return {torch.bool: True}.get(args[0].dtype, 1.0 if args[0].is_floating_point() else 1)
        if func in (_aten.equal.default, _aten.is_nonzero.default):
            writers = [self._written_by.get(storage_key(t)) for t in args]
            return len(set(writers)) == 1
        if func is _aten.nonzero.default:
            return args[0].new_empty((args[0].numel(), args[0].dim()), dtype=torch.int64)
        return None


def inside(func: Any, args: tuple) -> int:
    """Return the bytes that an operation's CUDA kernel takes while it runs, beyond what it returns.

    4-bit products of more than a few rows unpack the weight; the backward pass of attention adds up the gradient of
    the queries in float32.
    """
    name = name_of(func)
    if name == 'bitsandbytes::gemm_4bit' or (name.startswith('xtune::adapted') and args[3]):
        return args[0].element_size() * args[2][0] * args[2][1]
    if name.startswith('aten::_scaled_dot_product') and name.endswith('backward'):
        query, key = args[1], args[2]
        # Gradients of keys and values by head.
        copies = 2 * query.element_size() if key.shape[1] < query.shape[1] else 0
        return (4 + copies) * query.numel()
    return 0
