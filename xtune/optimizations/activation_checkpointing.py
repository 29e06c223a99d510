"""Which decoder layers keep their activations, and which compute them again in the backward pass.

A layer is called in a way, which can be another one in the next step. Compiled layers are compiled with their way;
transformers' own switch lies inside or outside of what is compiled, by its version.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from ..errors import ModelError
from ..ops.compilation import compiled, recomputes_functions
from ..utils.model_structure import layers_of

# Calls a layer: (layer, *its arguments, **its keyword arguments) -> what the layer returns.
Way = Callable[..., Any]


def keep(layer: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call `layer`, which keeps what its backward pass needs."""
    return layer(*args, **kwargs)


def recompute(layer: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call `layer`, of which only the arguments are kept."""
    return checkpoint(layer, *args, use_reentrant=False, **kwargs)


@dataclass(frozen=True)
class Ways:
    """The two ways of a model's layers, as they are or compiled."""

    keep: Way = keep
    recompute: Way = recompute

    @classmethod
    def compiled(cls, backend: str, functions: bool) -> 'Ways':
        """Return the ways of layers that torch.compile compiles with `backend`.

        Args:
            backend: Of torch.compile.
            functions: The layers have autograd functions of their own, as quantised ones do.
        """
        keeping = compiled(keep, backend)
        if functions and not recomputes_functions():
            return cls(keeping, lambda layer, *args, **kwargs: recompute(partial(keeping, layer), *args, **kwargs))
        return cls(keeping, compiled(recompute, backend))


class _Chooses:
    """Goes before the class of a layer, which is then called in the way that its attribute `way` is."""

    way: Way = staticmethod(keep)
    ways = Ways()
    graphs: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.training and torch.is_grad_enabled():
            if self.graphs is not None:
                return self.graphs.call(self, super().__call__, args, kwargs)
            return self.way(super().__call__, *args, **kwargs)
        return super().__call__(*args, **kwargs)


@lru_cache
def _choosing(kind: type) -> type:
    # The same name: some look layers up by it.
    return type(kind.__name__, (_Chooses, kind), {'__module__': kind.__module__, '__doc__': kind.__doc__})


class ActivationCheckpointing:
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
    def graphs(self) -> Any:
        """The layers as CUDA graphs."""
        return self.layers[0].graphs

    @property
    def ways(self) -> Ways:
        """How layers keep and recompute."""
        return self.layers[0].ways

    def compile(self, backend: str = 'inductor', functions: bool = False) -> None:
        """Compile the layers, each in its way, when they are called; for the arguments see `Ways.compiled`."""
        before, after = self.ways, Ways.compiled(backend, functions)
        moved: dict[Way, Way] = {}  # layers that are called in one way still are: it may know of the others
        for layer in self.layers:
            layer.ways = after
            way = layer.way
            if hasattr(way, 'through'):  # offload
                layer.way = moved[way] = moved.get(way) or way.through(after.recompute)
            else:
                layer.way = after.keep if way is before.keep else after.recompute

    @property
    def count(self) -> int:
        """How many layers recompute."""
        return sum(layer.way is not self.ways.keep for layer in self.layers)

    @property
    def kept(self) -> int:
        """How many layers keep their activations."""
        return len(self) - self.count

    def set(self, count: int, way: Way | None = None) -> None:
        """Let the first `count` layers be called in `way` (None: recompute), and the others keep what they need."""
        if self.graphs is not None:
            self.graphs.forget()
        way = way or self.ways.recompute
        for number, layer in enumerate(self.layers):
            layer.way = way if number < count else self.ways.keep


def recompute_activations(llm: torch.nn.Module, count: int | None = None, way: Way = recompute) -> None:
    """Let the first `count` layers of `llm` be called in `way`; None: all.

    Raises:
        ModelError: It has fewer layers, or no list of them.
    """
    layers = ActivationCheckpointing(llm)
    check_count(count, len(layers))
    layers.set(len(layers) if count is None else count, way)


def check_count(count: int | None, layers: int) -> None:
    """Refuse to recompute `count` layers of a model with fewer.

    Raises:
        ModelError: It has fewer.
    """
    if count is not None and count > layers:
        raise ModelError(
            f"activation_checkpointing={count}, but the model has {layers} layers: give at most {layers}, or 'all'"
        )
