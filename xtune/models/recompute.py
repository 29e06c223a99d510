"""Which decoder layers keep their activations, and which compute them again in the backward pass.

A layer is called in a way, which can be another one in the next step. Compiled layers are compiled with their way;
transformers' own switch lies inside or outside of what is compiled, by its version.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from ..errors import ModelError
from .compiling import Compiled, compiled
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

    def compile(self, backend: str = 'inductor') -> None:
        """Compile the layers, each in its way, when they are called."""
        for layer in self.layers:
            layer.way = layer.way.compiled() if hasattr(layer.way, 'compiled') else compiled(layer.way, backend)

    @property
    def keeping(self) -> Way:
        """The way of layers that keep what they need."""
        return self._like_the_others(keep)

    @property
    def recomputing(self) -> Way:
        """The way of layers that recompute."""
        return self._like_the_others(recompute)

    def _like_the_others(self, way: Way) -> Way:
        found = next((layer.way for layer in self.layers if isinstance(layer.way, Compiled)), None)
        return way if found is None else compiled(way, found.backend)

    @property
    def count(self) -> int:
        """How many layers recompute."""
        return sum(layer.way not in (keep, self.keeping) for layer in self.layers)

    @property
    def kept(self) -> int:
        """How many layers keep their activations."""
        return len(self) - self.count

    def set(self, count: int, way: Way | None = None) -> None:
        """Let the first `count` layers be called in `way` (None: recompute), and the others keep what they need."""
        way, keeping = way or self.recomputing, self.keeping
        for number, layer in enumerate(self.layers):
            layer.way = way if number < count else keeping


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
