"""How decoder layers are called in training: plainly or with activation checkpointing, eager or compiled.

transformers has a switch for activation checkpointing too, but whether it is inside or outside of what is compiled
depends on its version.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Protocol

import torch
from torch.utils.checkpoint import checkpoint

from ..ops.compilation import checkpoint_recomputes_custom_functions, compiled

# Calls a layer: (layer, *its arguments, **its keyword arguments) -> the layer's output.
LayerCall = Callable[..., Any]


def call_layer(layer: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call `layer` without activation checkpointing."""
    return layer(*args, **kwargs)


def checkpoint_layer(layer: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call `layer` with activation checkpointing: only its inputs are saved for the backward pass."""
    return checkpoint(layer, *args, use_reentrant=False, **kwargs)


@dataclass(frozen=True)
class LayerCalls:
    """The two ways to call the layers of a model, without and with activation checkpointing."""

    plain: LayerCall = call_layer
    checkpointed: LayerCall = checkpoint_layer

    @classmethod
    def compiled(cls, backend: str, custom_functions: bool) -> 'LayerCalls':
        """Return the same under torch.compile.

        Args:
            backend: Of torch.compile.
            custom_functions: The layers have custom autograd functions, as those of quantized linear layers.
        """
        plain = compiled(call_layer, backend)
        if custom_functions and not checkpoint_recomputes_custom_functions():
            return cls(plain, lambda layer, *args, **kwargs: checkpoint_layer(partial(plain, layer), *args, **kwargs))
        return cls(plain, compiled(checkpoint_layer, backend))


class LayerRunner(Protocol):
    """Runs layers in training instead of their `layer_call`, such as CUDA graphs."""

    def call(self, layer: torch.nn.Module, forward: Callable, args: tuple, kwargs: dict) -> Any:
        """Return the output of `layer`; `forward` calls it without its `layer_call`."""


class _TrainingCall:
    """Mixin in front of a layer's class. In training it goes through `runner` if there is one, else `layer_call`."""

    layer_call: LayerCall = staticmethod(call_layer)
    calls = LayerCalls()
    runner: LayerRunner | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.training and torch.is_grad_enabled():
            if self.runner is not None:
                return self.runner.call(self, super().__call__, args, kwargs)
            return self.layer_call(super().__call__, *args, **kwargs)
        return super().__call__(*args, **kwargs)


def make_call_replaceable(layer: torch.nn.Module) -> None:
    """Give `layer`, in place, the attributes `layer_call`, `calls` and `runner`; nothing changes if it has them."""
    if not isinstance(layer, _TrainingCall):
        layer.__class__ = _with_training_call(type(layer))


@lru_cache
def _with_training_call(layer_class: type) -> type:
    # The same name: some code looks layers up by it.
    names = {'__module__': layer_class.__module__, '__doc__': layer_class.__doc__}
    return type(layer_class.__name__, (_TrainingCall, layer_class), names)
