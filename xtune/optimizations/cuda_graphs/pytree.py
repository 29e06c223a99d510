"""Tensors in the arguments of a call, which are nested in tuples, lists and dicts."""

from collections.abc import Callable, Hashable, Iterator
from typing import Any

import torch

_PLAIN_TYPES = (type(None), bool, int, float, str, torch.dtype, torch.device)


class UnsupportedArgument(TypeError):
    """An argument is neither a tensor nor a plain value, such as a cache."""


def tensors_in(tree: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in `tree`, in order."""
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, dict):
        for name in sorted(tree):
            yield from tensors_in(tree[name])
    elif isinstance(tree, (tuple, list)):
        for part in tree:
            yield from tensors_in(part)


def distinct_tensors(tree: Any) -> list[torch.Tensor]:
    """Return the tensors in `tree`, each once."""
    return list({id(tensor): tensor for tensor in tensors_in(tree)}.values())


def signature_of(tree: Any) -> Hashable:
    """Return a key that is equal for two calls if only the values of their tensors differ.

    Raises:
        UnsupportedArgument: `tree` has something else in it.
    """
    if isinstance(tree, torch.Tensor):
        return tree.shape, tree.dtype, tree.device, tree.requires_grad
    if isinstance(tree, dict):
        return tuple((name, signature_of(tree[name])) for name in sorted(tree))
    if isinstance(tree, (tuple, list)):
        return type(tree), *map(signature_of, tree)
    if isinstance(tree, _PLAIN_TYPES):
        return type(tree), tree
    raise UnsupportedArgument(type(tree).__name__)


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """Return `tree` with `function(leaf)` in place of each leaf: everything but tuples, lists and dicts."""
    if isinstance(tree, dict):
        return {name: map_leaves(function, part) for name, part in tree.items()}
    if isinstance(tree, (tuple, list)):
        return type(tree)(map_leaves(function, part) for part in tree)
    return function(tree)
