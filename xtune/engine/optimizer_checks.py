"""Checks an optimizer on the device of the run with one step over small parameters, before data are read."""

import warnings
from functools import partial

import torch

from ..config.strategy_traits import StrategyTraits
from ..errors import ConfigError

# Enough elements that bitsandbytes keeps 8-bit state (4,096), and state that is paged (100,000).
_SIZE = 320
_PLAIN = 'torch.optim.AdamW'
_SMALL = 'bitsandbytes.optim.AdamW8bit'
# Arguments of torch's optimizers that choose an implementation, which not every device has.
_IMPLEMENTATIONS = ('fused', 'capturable')


def check_optimizer(optimizer: partial, trains_adapter: bool, traits: StrategyTraits, device: torch.device) -> None:
    """Refuse an optimizer that cannot train on `device`; some compile their kernels here.

    Args:
        optimizer: The class of the section `optimizer`, with its arguments.
        trains_adapter: The trained parameters are matrices of an adapter; otherwise there are vectors too.
        traits: The strategy of the run; optimizer state may be in CPU memory.
        device: The device of this rank.

    Raises:
        ConfigError: It needs another device, a compiler, a closure or sparse gradients, or it has no learning rate.
    """
    name = getattr(optimizer.func, '__name__', str(optimizer.func))
    state_device = torch.device('cpu') if traits.offloads else device
    if state_device.type != 'cuda' and _is_paged(optimizer):
        place = 'the optimizer state of this run is' if device.type == 'cuda' else 'this run has no GPU: its state is'
        raise ConfigError(
            f'optimizer {name} moves its state between a CUDA GPU and host memory, and {place} in host memory anyway; '
            f'set optimizer.type={_SMALL} (8-bit state) or optimizer.type={_PLAIN}'
        )
    try:
        stepped = _after_one_step(optimizer, trains_adapter, state_device)
    except Exception as error:  # of a library's code on a device it may not know: anything
        chosen = [argument for argument in _IMPLEMENTATIONS if optimizer.keywords.get(argument)]
        instead = f'leave out optimizer.{chosen[0]}' if chosen else f'set optimizer.type={_PLAIN}'
        raise ConfigError(
            f'optimizer {name} does not work on this {"GPU" if state_device.type == "cuda" else "CPU"}: '
            f'{_first_line(error)}; {instead}'
        ) from error
    rates = [group.get('lr') for group in stepped.param_groups]
    if any(isinstance(rate, bool) or not isinstance(rate, (int, float, torch.Tensor)) for rate in rates):
        raise ConfigError(
            f'optimizer {name} has no learning rate that the schedule could scale (lr={rates[0]!r}): set optimizer.lr'
            + (' and optimizer.relative_step=False' if 'relative_step' in stepped.param_groups[0] else '')
        )


def _is_paged(optimizer: partial) -> bool:
    optimizer_class, arguments = optimizer.func, optimizer.keywords
    return optimizer_class.__module__.startswith('bitsandbytes') and (
        optimizer_class.__name__.startswith('Paged') or bool(arguments.get('is_paged'))
    )


def _after_one_step(optimizer: partial, trains_adapter: bool, device: torch.device) -> torch.optim.Optimizer:
    """Return the optimizer after a step over a matrix [320, 320], and a vector [320] where norms are trained too."""
    shapes = [(_SIZE, _SIZE)] if trains_adapter else [(_SIZE, _SIZE), (_SIZE,)]
    parameters = [torch.nn.Parameter(torch.zeros(shape, device=device)) for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the optimizer of the run repeats them
        stepped = optimizer(parameters)
        stepped.step()
    return stepped


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip('.')
