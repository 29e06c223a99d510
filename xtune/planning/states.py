"""The optimizer of a run where its values do not matter: what it keeps for each parameter, and what an update takes."""

from typing import Any

import torch

from ..config.wire import Job
from ..engine.optimizer import StepOptimizer, build_optimizer, has_kernel

# bitsandbytes keeps small tensors in 32 bits, and pages those of at least PAGED values out of the allocator.
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


class StandIn(torch.optim.Optimizer):
    """Keeps as many bytes as an optimizer of bitsandbytes, whose kernels need values, and changes nothing.

    Args:
        parameters: What is trained.
        name: The class it stands for: 8 bits or 32, one moment or two, paged or not.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], name: str) -> None:
        super().__init__(parameters, {})
        self.bits, self.moments, self.paged = *self._state(name), 'Paged' in name

    @staticmethod
    def _state(name: str) -> tuple[int, int]:
        """Return the bits of a value, and how many an optimizer of that name keeps of each parameter."""
        if 'AdEMAMix' in name:
            return 8 if '8bit' in name else 32, 3
        return 8 if '8bit' in name else 32, 2 if any(one in name for one in ('Adam', 'LAMB')) else 1

    @classmethod
    def bytes_each(cls, name: str) -> int:
        """Return the least bytes that an optimizer of that name keeps of each value."""
        bits, moments = cls._state(name)
        return bits // 8 * moments

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Make the state of each parameter that has a gradient, once."""
        for parameter in self.param_groups[0]['params']:
            if parameter.grad is None or self.state[parameter] or (self.paged and parameter.numel() >= PAGED):
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
