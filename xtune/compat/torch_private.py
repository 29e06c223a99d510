"""Private names of torch that a training run needs; torch_tracing_private.py has those of memory plans."""

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh

# The matrix product whose kernels torch.compile autotunes in every release that xtune supports; the public one is
# torch.nn.functional.scaled_mm. None: a release without the private name.
SCALED_MM = getattr(torch, '_scaled_mm', None)


def compile_error() -> type[Exception]:
    """Return the base class of the errors that torch.compile raises when it cannot compile; no public name exists.

    A function, because importing torch._dynamo takes a second.
    """
    from torch._dynamo.exc import TorchDynamoException

    return TorchDynamoException


def allow_recompiles(count: int) -> None:
    """Let torch.compile make at least `count` graphs of one function; the default is 8, and only a private config has
    the limit."""
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, count)


def maybe_mark_dynamic(tensor: torch.Tensor, dim: int) -> None:
    """Let torch.compile make one graph for all sizes of `dim`, without an error where the graph fixes the size.

    The public torch.compiler has no such hint.
    """
    torch._dynamo.maybe_mark_dynamic(tensor, dim)


def copy_all_(destinations: list[torch.Tensor], sources: list[torch.Tensor]) -> None:
    """Copy each source into its destination by one kernel launch; the public `copy_` needs one for each tensor."""
    torch._foreach_copy_(destinations, sources)


def has_hooks(module: torch.nn.Module) -> bool:
    """Return whether forward or backward hooks are registered on `module`; torch has public names for adding only."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


def takes_found_inf(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether `optimizer` can skip its update on the device, as GradScaler asks of fused optimizers."""
    return getattr(optimizer, '_step_supports_amp_scaling', False)


@contextmanager
def found_inf(optimizer: torch.optim.Optimizer, value: torch.Tensor) -> Iterator[None]:
    """Return a context in which `optimizer.step()` does nothing if `value`, a float scalar on the device, is 1.

    torch's GradScaler tells fused optimizers so. It is no use here itself: it also scales the loss, and no public call
    hands over a flag that it did not compute.
    """
    optimizer.found_inf = value
    try:
        yield
    finally:
        del optimizer.found_inf


def release_capture_pool(device_index: int, pool: tuple[int, int]) -> bool:
    """End the redirection of allocations into the memory `pool` of a CUDA graph capture that failed.

    Returns:
        False where the capture had ended it already. torch.cuda.graph leaves it in place when `capture_end` raises, and
        no public function ends it.
    """
    try:
        torch._C._cuda_endAllocateToPool(device_index, pool)
    except RuntimeError:
        return False
    torch._C._cuda_releasePool(device_index, pool)
    return True


def release_mesh_groups(objects: Iterable[Any] | None = None) -> None:
    """Let every DeviceMesh forget its process groups, which would keep the groups' threads alive after their end.

    DTensor's caches keep meshes until the interpreter ends, and torch has no public way to empty them.

    Args:
        objects: Where to look for meshes; default: everything the garbage collector tracks.
    """
    for thing in gc.get_objects() if objects is None else objects:
        if type(thing) is DeviceMesh:
            getattr(thing, '_pg_registry', {}).clear()  # not in every release


class ConversionHook(torch.nn.Module):
    """A module that has a say in what `to()`, `cuda()`, `half()` and their like make of its tensors.

    All of them go through `Module._apply`, and torch has no public hook there.
    """

    def converted(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Return what the module gets instead of `after`, which the call made of `before`; default: `after`."""
        return after

    def _apply(self, fn: Any, recurse: bool = True) -> 'ConversionHook':
        return super()._apply(lambda tensor: self.converted(tensor, fn(tensor)), recurse)
