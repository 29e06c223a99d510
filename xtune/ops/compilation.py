"""torch.compile, where it works: the one place that knows its private parts.

A layer is compiled with what is done around it (`recompute`), so that the backward pass leaves out what only the output
needed: the last product of each layer, a quarter of its work.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import torch
from torch._dynamo.exc import TorchDynamoException
from torch.utils.checkpoint import checkpoint

from ..version import __version__

# Graphs of one function; torch allows 8. Layers of several kinds, the first of which needs no gradient of its input,
# and rows of several widths have one each.
GRAPHS = 32


class Compiled:
    """`function`, compiled when it is called; if torch cannot compile it, it says so once and goes on without.

    Args:
        function: What to compile.
        backend: Of torch.compile.
        dynamic: Let one graph serve every shape.
    """

    def __init__(self, function: Callable, backend: str = 'inductor', dynamic: bool | None = None) -> None:
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, GRAPHS)
        # Graphs are kept between runs by what they call, not by what it does, which may change with the version.
        torch.compiler.config.cache_key_tag = torch.compiler.config.cache_key_tag or f'xtune {__version__}'
        self.backend = backend
        self.plain, self._fast = function, torch.compile(function, backend=backend, dynamic=dynamic)
        self.broken = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.broken:
            try:
                return self._fast(*args, **kwargs)
            except TorchDynamoException as error:
                self.broken = True
                reason = str(error).strip().partition('\n')[0] or type(error).__name__
                print(f'note: torch.compile fails here ({reason[:200]}), so the run goes on without it', flush=True)
        return self.plain(*args, **kwargs)


# Makes what stands for a compiled function where none is to run.
_stand_in: ContextVar[Callable[[Callable], Callable] | None] = ContextVar('stand_in', default=None)


@contextmanager
def replaced(make: Callable[[Callable], Callable]) -> Iterator[None]:
    """Return a context in which `compiled(function)` is `make(function)`, and compiling works on any device."""
    token = _stand_in.set(make)
    try:
        yield
    finally:
        _stand_in.reset(token)


def compiled(function: Callable, backend: str = 'inductor', dynamic: bool | None = None) -> Callable:
    """Return `function`, compiled: the same object for the same function."""
    make = _stand_in.get()
    return _compiled(function, backend, dynamic) if make is None else make(function)


def works(device: torch.device) -> bool:
    """Tell whether torch.compile works on `device`, a GPU: it needs Triton and a C compiler. Takes a few seconds."""
    return _stand_in.get() is not None or _works(device.type)


@lru_cache
def _compiled(function: Callable, backend: str, dynamic: bool | None) -> Compiled:
    return Compiled(function, backend, dynamic)


@lru_cache
def _works(kind: str) -> bool:
    if kind != 'cuda':
        return False
    trial = Compiled(_trial)
    trial(torch.ones(16, device=kind))
    return not trial.broken


@lru_cache
def recomputes_functions() -> bool:
    """Tell whether recomputation that is compiled with a layer computes autograd functions again.

    torch 2.11 keeps the products that they return, torch 2.13 does not. Tried on small ones, which takes a second.
    """
    values, kept = torch.ones(2, 3, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        torch.compile(_recomputed, backend='aot_eager_decomp_partition')(values, torch.ones(3, 3))
    return sum(tensor.shape == values.shape for tensor in kept) == 1


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return values @ weight

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor, None]:
        return slope @ ctx.saved_tensors[0].t(), None


def _functions(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return _Product.apply(_Product.apply(_Product.apply(values, weight).sin(), weight).sin(), weight)


def _recomputed(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return checkpoint(_functions, values, weight, use_reentrant=False)


def _trial(values: torch.Tensor) -> torch.Tensor:
    return values.sin() + 1
