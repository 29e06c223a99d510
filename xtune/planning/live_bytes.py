"""Count the bytes of all live tensors, operation by operation, with or without values.

Under FakeTensorMode a training step of any size runs on any machine: tensors have shapes and dtypes, and no memory. The
bytes allocated at each moment are then known without the GPU that will do the run.
"""

import weakref
from typing import Any

import torch

from ..compat.torch_tracing_private import LOCAL_SCALAR, TorchDispatchMode, name_of, storage_key, tree_leaves

# The CUDA allocator rounds each allocation up to a multiple of this.
ALLOCATION_UNIT = 512
_aten = torch.ops.aten


class LiveBytes(TorchDispatchMode):
    """Counts the storages created while the mode is active: `allocated` bytes now, and their `peak`.

    Fake tensors have no values to read. Where an operation needs one, a number is 1, and two tensors are equal if the
    same type of operation wrote both.

    Args:
        fake: Whether the tensors are fake.
        unit: Bytes; the size of each storage is rounded up to a multiple of it.
    """

    def __init__(self, fake: bool = False, unit: int = ALLOCATION_UNIT) -> None:
        super().__init__()
        self.fake, self.unit = fake, unit
        self.allocated = self.peak = 0
        self._written_by: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        value = self._assumed_value(func, args) if self.fake else None
        out = func(*args, **(kwargs or {})) if value is None else value
        self.peak = max(self.peak, self.allocated + kernel_workspace(func, args))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf, None if func.is_view else func)
        return out

    def _count(self, tensor: torch.Tensor, func: Any) -> None:
        storage, key = tensor.untyped_storage(), storage_key(tensor)
        if key not in self._written_by:
            size = -(-storage.nbytes() // self.unit) * self.unit
            self.allocated += size
            self.peak = max(self.peak, self.allocated)
            weakref.finalize(storage, self._free, key, size).atexit = False
            self._written_by[key] = func
        elif func is not None:
            self._written_by[key] = func

    def _free(self, key: int, size: int) -> None:
        self.allocated -= size
        del self._written_by[key]

    def _assumed_value(self, func: Any, args: tuple) -> Any:
        """Return the result of an operation that depends on values; None: it depends on shapes only."""
        if func is LOCAL_SCALAR:
            return {torch.bool: True}.get(args[0].dtype, 1.0 if args[0].is_floating_point() else 1)
        if func in (_aten.equal.default, _aten.is_nonzero.default):
            writers = [self._written_by.get(storage_key(t)) for t in args]
            return len(set(writers)) == 1
        if func is _aten.nonzero.default:
            return args[0].new_empty((args[0].numel(), args[0].dim()), dtype=torch.int64)
        return None


def kernel_workspace(func: Any, args: tuple) -> int:
    """Return the bytes that the CUDA kernel of an operation allocates while it runs, beyond its results.

    4-bit matmuls of more than a few rows dequantize the weight. The backward pass of attention accumulates the gradient
    of the queries in float32.
    """
    name = name_of(func)
    if name == 'bitsandbytes::gemm_4bit' or (name.startswith('xtune::adapted') and args[3]):
        return args[0].element_size() * args[2][0] * args[2][1]
    if name.startswith('aten::_scaled_dot_product') and name.endswith('backward'):
        query, key = args[1], args[2]
        # Gradients of keys and values per query head, if heads are grouped.
        copies = 2 * query.element_size() if key.shape[1] < query.shape[1] else 0
        return (4 + copies) * query.numel()
    return 0
