"""Whether an optimizer works where a run trains: found out by one step over small parameters, before data are read."""

import warnings
from collections.abc import Callable

import torch

from ..config.strategy_traits import traits_of
from ..config.wire import Job
from ..errors import ConfigError
from ..parallel.env import World

# Enough elements that bitsandbytes keeps 8-bit state (4,096), and state that is paged (100,000).
_SIZE = 320
_PLAIN = 'torch.optim.AdamW'
_SMALL = 'bitsandbytes.optim.AdamW8bit'
# Arguments of torch's optimizers that choose an implementation, which not every device has.
_IMPLEMENTATIONS = ('fused', 'capturable')


def check_optimizer(job: Job, world: World, device: torch.device) -> None:
    """Refuse an optimizer that cannot train on `device`; some compile their kernels here.

    Raises:
        ConfigError: It needs another device, a compiler, a closure or sparse gradients, or it has no learning rate.
    """
    kind, given = job.optimizer.func, job.optimizer.keywords
    name = getattr(kind, '__name__', str(kind))
    where = torch.device('cpu') if traits_of(job.strategy.name, world.size).offloads else device
    if where.type != 'cuda' and _is_paged(kind, given):
        place = 'the optimizer state of this run is' if device.type == 'cuda' else 'this run has no GPU: its state is'
        raise ConfigError(
            f'optimizer {name} moves its state between a CUDA GPU and host memory, and {place} in host memory anyway; '
            f'set optimizer.type={_SMALL} (8-bit state) or optimizer.type={_PLAIN}'
        )
    try:
        optimizer = _after_one_step(job, where)
    except Exception as error:  # of a library's code on a device it may not know: anything
        chosen = [argument for argument in _IMPLEMENTATIONS if given.get(argument)]
        instead = f'leave out optimizer.{chosen[0]}' if chosen else f'set optimizer.type={_PLAIN}'
        raise ConfigError(
            f'optimizer {name} does not work on this {"GPU" if where.type == "cuda" else "CPU"}: '
            f'{_first_line(error)}; {instead}'
        ) from error
    rates = [group.get('lr') for group in optimizer.param_groups]
    if any(isinstance(rate, bool) or not isinstance(rate, (int, float, torch.Tensor)) for rate in rates):
        raise ConfigError(
            f'optimizer {name} has no learning rate that the schedule could scale (lr={rates[0]!r}): set optimizer.lr'
            + (' and optimizer.relative_step=False' if 'relative_step' in optimizer.param_groups[0] else '')
        )


def _is_paged(kind: Callable, given: dict) -> bool:
    return kind.__module__.startswith('bitsandbytes') and (
        kind.__name__.startswith('Paged') or bool(given.get('is_paged'))
    )


def _after_one_step(job: Job, device: torch.device) -> torch.optim.Optimizer:
    """Return the optimizer after a step over a matrix [320, 320], and a vector [320] where norms are trained too."""
    shapes = [(_SIZE, _SIZE)] if job.lora is not None else [(_SIZE, _SIZE), (_SIZE,)]
    parameters = [torch.nn.Parameter(torch.zeros(shape, device=device)) for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the run's own optimizer says it again
        optimizer = job.optimizer(parameters)
        optimizer.step()
    return optimizer


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip('.')
