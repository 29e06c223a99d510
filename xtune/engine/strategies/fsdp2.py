"""FSDP2: weights, gradients and optimizer state are sharded over all ranks."""

import torch

from ...config.strategy_traits import StrategyTraits
from ...parallel.fsdp import shard
from ...parallel.rank0_loading import load_on_rank0
from ...parallel.rendezvous import Rendezvous
from .base import ModelBuilder
from .local_optimizer import LocalOptimizerStrategy, clip


class Fsdp2(LocalOptimizerStrategy):
    """See the module. Gradients are reduce-scattered in the backward pass.

    Args:
        traits: Of the strategy; `offloads` keeps shards in CPU memory.
        device: Of this rank.
        rendezvous: Of the ranks.
    """

    def __init__(self, traits: StrategyTraits, device: torch.device, rendezvous: Rendezvous) -> None:
        self.traits, self.device, self.rendezvous = traits, device, rendezvous

    def place(self, builder: ModelBuilder) -> torch.nn.Module:
        """See `Strategy`. Rank 0 loads the weights; the others build the model on the meta device."""
        llm, weights = load_on_rank0(builder.load_base_on_cpu, builder.meta_init, builder.finish, self.rendezvous)
        builder.report(llm)
        return shard(llm, weights, self.device, builder.dtype, offload=self.traits.offloads)

    def reduce_and_clip(self, max_grad_norm: float | None) -> torch.Tensor:
        """See `Strategy`."""
        return clip(self.trained(), max_grad_norm)
