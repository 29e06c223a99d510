"""Which decoder layers keep their activations, and which compute them again in the backward pass.

A layer is called in a way, which can be another one in the next step. The choice lies around what torch.compile makes
of a layer, so a change compiles nothing anew; transformers' own switch lies inside or outside, by its version.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from ..errors import ModelError
from .layers import layers_of

# Calls a layer: (layer, *its arguments, **its keyword arguments) -> what the layer returns.
Way = Callable[..., Any]


def keep(layer: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call `layer`, which keeps what its backward pass needs."""
    return layer(*args, **kwargs)


def recompute(layer: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call `layer`, of which only the arguments are kept."""
    return checkpoint(layer, *args, use_reentrant=False, **kwargs)


class _Chooses:
    """Goes before the class of a layer, which is then called in the way that its attribute `way` is."""

    way: Way = staticmethod(keep)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.training and torch.is_grad_enabled():
            return self.way(super().__call__, *args, **kwargs)
        return super().__call__(*args, **kwargs)


@lru_cache
def _choosing(kind: type) -> type:
    # The same name: some look layers up by it.
    return type(kind.__name__, (_Chooses, kind), {'__module__': kind.__module__, '__doc__': kind.__doc__})


class Recomputation:
    """The decoder layers of `llm`, the first `count` of which recompute; at first as they were, or none.

    The first ones, because the backward pass has freed what the others keep when it comes to them.

    Raises:
        ModelError: It has no list of layers.
    """

    def __init__(self, llm: torch.nn.Module) -> None:
        self.layers = layers_of(llm)
        for layer in self.layers:
            if not isinstance(layer, _Chooses):
                layer.__class__ = _choosing(type(layer))

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def count(self) -> int:
        """How many layers recompute."""
        return sum(layer.way is not keep for layer in self.layers)

    @property
    def kept(self) -> int:
        """How many layers keep their activations."""
        return len(self) - self.count

    def set(self, count: int, way: Way = recompute) -> None:
        """Let the first `count` layers be called in `way`, and the others keep what they need."""
        for number, layer in enumerate(self.layers):
            layer.way = way if number < count else keep


def recompute_activations(llm: torch.nn.Module, count: int | None = None, way: Way = recompute) -> None:
    """Let the first `count` layers of `llm` be called in `way`; None: all.

    Raises:
        ModelError: It has fewer layers, or no list of them.
    """
    layers = Recomputation(llm)
    if count is not None and count > len(layers):
        raise ModelError(
            f"checkpointing={count}, but the model has {len(layers)} layers: give at most {len(layers)}, or 'all'"
        )
    layers.set(len(layers) if count is None else count, way)
