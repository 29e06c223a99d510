"""The tensors in the arguments of a call, which are nested in tuples, lists and dicts."""

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import torch

_PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device)


class Strange(TypeError):
    """There is something among arguments that is neither a tensor nor a plain value."""


def leaves(given: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in `given`, in order."""
    if isinstance(given, torch.Tensor):
        yield given
    elif isinstance(given, dict):
        for name in sorted(given):
            yield from leaves(given[name])
    elif isinstance(given, (tuple, list)):
        for part in given:
            yield from leaves(part)


def form(given: Any) -> Hashable:
    """Return what two calls have in common that differ in the values of their tensors only.

    Raises:
        Strange: There is something else in it, such as a cache.
    """
    if isinstance(given, torch.Tensor):
        return given.shape, given.dtype, given.device, given.requires_grad
    if isinstance(given, dict):
        return tuple((name, form(given[name])) for name in sorted(given))
    if isinstance(given, (tuple, list)):
        return type(given), *map(form, given)
    if isinstance(given, _PLAIN):
        return type(given), given
    raise Strange(type(given).__name__)


def replaced(given: Any, by: Mapping[int, Any]) -> Any:
    """Return `given` with what `by` has for the `id` of a tensor in place of it."""
    if isinstance(given, torch.Tensor):
        return by[id(given)]
    if isinstance(given, dict):
        return {name: replaced(part, by) for name, part in given.items()}
    if isinstance(given, (tuple, list)):
        return type(given)(replaced(part, by) for part in given)
    return given
