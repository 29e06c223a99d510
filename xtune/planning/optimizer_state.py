"""The optimizer of a run where its values do not matter: what it keeps for each parameter, and what an update takes."""

from typing import Any

import torch

from ..config.wire import Job
from ..engine.optimizer import StepOptimizer, build_optimizer, has_kernel
from .internals import tree_leaves

# bitsandbytes keeps small tensors in 32 bits. Its paged optimizers keep the state of tensors of at least PAGED values
# in memory that moves between GPU and host, which no allocator of torch counts.
SMALL, PAGED, BLOCK = 4096, 100_000, 256


def counted_optimizer(job: Job, parameters: list[torch.nn.Parameter]) -> StepOptimizer:
    """Return the optimizer of `job` as it would be on a GPU, for tensors without values.

    Raises:
        ConfigError: It refuses its arguments.
    """
    kind = job.optimizer.func
    if kind.__module__.startswith('bitsandbytes'):
        return StepOptimizer(StandIn(parameters, kind.__name__), job.schedule.max_grad_norm)
    made = build_optimizer(job, parameters, torch.device('cpu'))
    for group in made.param_groups:
        if has_kernel(job):
            group['fused'] = True
        # The default on GPUs: all parameters at once, with temporary tensors for all of them.
        if group.get('foreach', False) is None and not group.get('fused'):
            group['foreach'] = True
    return made


def make_state(optimizer: StepOptimizer, parameters: list[torch.nn.Parameter]) -> None:
    """Let an optimizer make the state of all parameters, as its first step does."""
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()


def state_bytes_each(job: Job) -> float:
    """Return the bytes that the optimizer of `job` keeps of each trained value, from an update of a small matrix.

    Raises:
        ConfigError: It refuses its arguments.
    """
    matrix = torch.nn.Parameter(torch.zeros(256, 256))
    made = counted_optimizer(job, [matrix])
    make_state(made, [matrix])
    tensors = tree_leaves(dict(made.optimizer.state[matrix]))
    kept = sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor) and t.dim())
    return kept / matrix.numel()


def paged_bytes(job: Job, parameters: list[torch.nn.Parameter]) -> int:
    """Return the bytes of state that the optimizer of `job` pages: memory that no allocator of torch counts.

    It lies on the GPU as long as there is room, and moves to host memory where there is none.
    """
    kind = job.optimizer.func
    if not kind.__module__.startswith('bitsandbytes') or 'Paged' not in kind.__name__:
        return 0
    return round(state_bytes_each(job) * sum(p.numel() for p in parameters if p.numel() >= PAGED))


class StandIn(torch.optim.Optimizer):
    """Keeps as many bytes as an optimizer of bitsandbytes, whose kernels need values, and changes nothing.

    Args:
        parameters: What is trained.
        name: The class it stands for: 8 bits or 32, one moment or two. Paged state counts as on the GPU.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], name: str) -> None:
        super().__init__(parameters, {})
        self.bits, self.moments = self.state_of(name)

    @staticmethod
    def state_of(name: str) -> tuple[int, int]:
        """Return the bits of a value, and how many an optimizer of that name keeps of each parameter."""
        if 'AdEMAMix' in name:
            return 8 if '8bit' in name else 32, 3
        return 8 if '8bit' in name else 32, 2 if any(one in name for one in ('Adam', 'LAMB')) else 1

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Make the state of each parameter that has a gradient, once."""
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
