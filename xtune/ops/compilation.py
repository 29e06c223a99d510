"""torch.compile with a fallback to eager mode.

A decoder layer is compiled together with its activation checkpointing, so that the backward pass recomputes nothing
that only the layer's output needs: the last matmul of each layer, a quarter of its work.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from ..compat.torch_private import allow_recompiles, compile_error
from ..version import __version__

# Graphs of one function; torch's default is 8. Each layer type, each sequence length, and the first layer, whose input
# needs no gradient, takes one.
RECOMPILE_LIMIT = 32


class Compiled:
    """`function` under torch.compile; if compilation fails, it prints a note once and stays in eager mode.

    Args:
        function: The function to compile, at its first call.
        backend: Of torch.compile.
        dynamic: Make one graph for all shapes.

    Attributes:
        eager: The function itself.
        failed: Compilation failed, so calls run in eager mode.
    """

    def __init__(self, function: Callable, backend: str = 'inductor', dynamic: bool | None = None) -> None:
        allow_recompiles(RECOMPILE_LIMIT)
        # torch caches graphs between runs by the names of the functions they call, whose code changes with our version.
        torch.compiler.config.cache_key_tag = torch.compiler.config.cache_key_tag or f'xtune {__version__}'
        self.backend = backend
        self.eager, self._compiled = function, torch.compile(function, backend=backend, dynamic=dynamic)
        self.failed = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.failed:
            try:
                return self._compiled(*args, **kwargs)
            except compile_error() as error:
                self.failed = True
                reason = str(error).strip().partition('\n')[0] or type(error).__name__
                print(f'note: torch.compile failed ({reason[:200]}); continuing in eager mode', flush=True)
        return self.eager(*args, **kwargs)


def compiled(function: Callable, backend: str = 'inductor', dynamic: bool | None = None) -> Callable:
    """Return `function` under torch.compile, the same object for the same arguments; see `Compiled`."""
    return _compiled(function, backend, dynamic)


def can_compile(device: torch.device) -> bool:
    """Return whether torch.compile works on `device`, a GPU with Triton and a C compiler. The first call takes a few
    seconds."""
    return _can_compile(device.type)


@lru_cache
def _compiled(function: Callable, backend: str, dynamic: bool | None) -> Compiled:
    return Compiled(function, backend, dynamic)


@lru_cache
def _can_compile(device_type: str) -> bool:
    if device_type != 'cuda':
        return False
    function = Compiled(_sine_plus_one)
    function(torch.ones(16, device=device_type))
    return not function.failed


@lru_cache
def checkpoint_recomputes_custom_functions() -> bool:
    """Return whether activation checkpointing inside a compiled graph recomputes custom autograd functions.

    torch 2.11 saves their outputs, torch 2.13 recomputes them. Tested on small tensors, which takes a second.
    """
    x, saved = torch.ones(2, 3, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        torch.compile(_checkpointed_matmuls, backend='aot_eager_decomp_partition')(x, torch.ones(3, 3))
    return sum(tensor.shape == x.shape for tensor in saved) == 1


class _Matmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return x @ weight

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad @ ctx.saved_tensors[0].t(), None


def _matmuls(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return _Matmul.apply(_Matmul.apply(_Matmul.apply(x, weight).sin(), weight).sin(), weight)


def _checkpointed_matmuls(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return checkpoint(_matmuls, x, weight, use_reentrant=False)


def _sine_plus_one(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1
