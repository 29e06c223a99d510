"""Parallelism strategies: what each rank holds, and how a step reduces gradients and updates weights.

`base.Strategy` is the interface. `build_strategy` picks the class.
"""

from collections.abc import Callable
from typing import Any

import torch

from ...config.sections import Strategy as StrategySection
from ...config.strategy_traits import traits_of
from ...parallel.env import World
from ...parallel.rendezvous import Rendezvous
from .base import ModelBuilder, Strategy
from .deepspeed_zero import DeepSpeedZero
from .fsdp2 import Fsdp2
from .replicated import Replicated

__all__ = ['DeepSpeedZero', 'Fsdp2', 'ModelBuilder', 'Replicated', 'Strategy', 'build_strategy']


def build_strategy(
    section: StrategySection,
    world: World,
    rendezvous: Rendezvous | None,
    device: torch.device,
    zero_settings: Callable[[torch.dtype], dict[str, Any]],
) -> Strategy:
    """Return the strategy of a run.

    Args:
        section: The section `strategy` of the config.
        world: The ranks of the run.
        rendezvous: Of these ranks; None: there is one.
        device: Of this rank.
        zero_settings: Maps the compute dtype to DeepSpeed's configuration without 'auto'.
    """
    traits = traits_of(section.name, world.size)
    if traits.is_zero:
        return DeepSpeedZero(traits, device, rendezvous, world.local_rank, zero_settings)
    if traits.is_fsdp2:
        return Fsdp2(traits, device, rendezvous)
    return Replicated()
