"""The private parts of torch that planning needs. `tests/planning/test_internals.py` fails if a release moves them."""

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ['FakeTensorMode', 'TorchDispatchMode', 'name_of', 'storage_key', 'tree_leaves']


def storage_key(tensor: torch.Tensor) -> int:
    """Return a number that no other live storage has, also for tensors without values."""
    return tensor.untyped_storage()._cdata


def name_of(operation: Any) -> str:
    """Return the name of an operation that a dispatch mode is called with, such as `aten::add`."""
    return operation._schema.name
