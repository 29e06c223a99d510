"""Private names of torch that memory plans need: fake tensors, and modes that see every operation.

`TorchDispatchMode` and `tree_leaves` are documented for extensions of torch, but only private modules have them.
Nothing public creates fake tensors.
"""

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ['LOCAL_SCALAR', 'FakeTensorMode', 'TorchDispatchMode', 'name_of', 'storage_key', 'tree_leaves']

# The operation of `tensor.item()`.
LOCAL_SCALAR = torch.ops.aten._local_scalar_dense.default


def storage_key(tensor: torch.Tensor) -> int:
    """Return a number that no other live storage has, also for fake tensors, whose `data_ptr` is refused."""
    return tensor.untyped_storage()._cdata


def name_of(operation: Any) -> str:
    """Return the name of an operation that a dispatch mode is called with, such as `aten::add`.

    The public `name()` has the overload in it.
    """
    return operation._schema.name
