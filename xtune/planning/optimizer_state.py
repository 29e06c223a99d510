"""The optimizer of a run on fake tensors: the state that it keeps per parameter, and the memory of an update."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from ..compat.torch_tracing_private import tree_leaves

# bitsandbytes keeps the state of tensors smaller than SMALL in 32 bits, and 8-bit state in blocks with one scale each.
# Its paged optimizers keep the state of tensors of at least PAGED values in memory that moves between GPU and host,
# which the allocator of torch does not count.
SMALL, PAGED, BLOCK = 4096, 100_000, 256


def is_bitsandbytes(factory: partial) -> bool:
    """Return whether the optimizer class is one of bitsandbytes."""
    return factory.func.__module__.startswith('bitsandbytes')


def is_paged(factory: partial) -> bool:
    """Return whether the state of the optimizer may move to host memory."""
    return is_bitsandbytes(factory) and 'Paged' in factory.func.__name__


def as_on_gpu(optimizer: torch.optim.Optimizer, has_fused_kernel: bool) -> torch.optim.Optimizer:
    """Set an optimizer that was built on the CPU to update as it would on a GPU, and return it."""
    for group in optimizer.param_groups:
        if has_fused_kernel:
            group['fused'] = True
        # The default on GPUs: all parameters at once, with temporary tensors for all of them.
        if group.get('foreach', False) is None and not group.get('fused'):
            group['foreach'] = True
    return optimizer


def initialize_state(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]) -> None:
    """Make an optimizer create the state of all parameters, as its first step does."""
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()


def state_bytes_per_parameter(build: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]) -> float:
    """Return the bytes of state per trained value of the optimizer that `build` returns, from a step on a small matrix.

    Raises:
        ConfigError: The optimizer refuses its arguments.
    """
    matrix = torch.nn.Parameter(torch.zeros(256, 256))
    optimizer = build([matrix])
    initialize_state(optimizer, [matrix])
    tensors = tree_leaves(dict(optimizer.state[matrix]))
    size = sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor) and t.dim())
    return size / matrix.numel()


def paged_state_bytes(bytes_per_parameter: float, parameters: list[torch.nn.Parameter]) -> int:
    """Return the bytes of paged optimizer state, which the allocator of torch does not count.

    The state is on the GPU while there is room, and moves to host memory otherwise.
    """
    return round(bytes_per_parameter * sum(p.numel() for p in parameters if p.numel() >= PAGED))


class FakeBitsandbytesOptimizer(torch.optim.Optimizer):
    """Allocates the state of an optimizer of bitsandbytes, whose kernels need real values, and updates nothing.

    Args:
        parameters: The trained parameters.
        name: The class of bitsandbytes: 8 or 32 bits, one moment or more. Paged state counts as state on the GPU.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], name: str) -> None:
        super().__init__(parameters, {})
        self.bits, self.moments = self.state_of(name)

    @staticmethod
    def state_of(name: str) -> tuple[int, int]:
        """Return the bits of a value of the state, and the values per parameter, of the optimizer class `name`."""
        if 'AdEMAMix' in name:
            return 8 if '8bit' in name else 32, 3
        return 8 if '8bit' in name else 32, 2 if any(part in name for part in ('Adam', 'LAMB')) else 1

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Create the state of each parameter that has a gradient, once."""
        for parameter in self.param_groups[0]['params']:
            if parameter.grad is None or self.state[parameter]:
                continue
            for number in range(self.moments):
                if self.bits == 32 or parameter.numel() < SMALL:
                    self.state[parameter][number] = torch.zeros_like(parameter, dtype=torch.float32)
                else:
                    blocks = -(-parameter.numel() // BLOCK)
                    self.state[parameter][number] = (
                        torch.zeros_like(parameter, dtype=torch.uint8),
                        parameter.new_zeros(blocks, dtype=torch.float32),
                    )
