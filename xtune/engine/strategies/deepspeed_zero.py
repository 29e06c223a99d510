"""DeepSpeed ZeRO 1 to 3: optimizer state, then gradients, then weights are sharded over all ranks."""

from collections.abc import Callable
from typing import Any

import torch

from ...config.strategy_traits import StrategyTraits
from ...data.batches import MicroBatch
from ...parallel.collectives import all_reduce_sum
from ...parallel.rank0_loading import load_on_rank0
from ...parallel.rendezvous import Rendezvous
from ...parallel.zero import ZeroEngine, partition
from ...tasks.sft import SupervisedFineTuning
from .base import ModelBuilder, Strategy


class DeepSpeedZero(Strategy):
    """See the module. DeepSpeed's engine clips and updates in one call, so `reduce_and_clip` also updates.

    Args:
        traits: Of the strategy.
        device: Of this rank.
        rendezvous: Of the ranks.
        local_rank: Of this rank on its host; some launchers do not pass it to DeepSpeed.
        settings: Maps the compute dtype to DeepSpeed's configuration without 'auto'.
    """

    def __init__(
        self,
        traits: StrategyTraits,
        device: torch.device,
        rendezvous: Rendezvous,
        local_rank: int,
        settings: Callable[[torch.dtype], dict[str, Any]],
    ) -> None:
        self.traits, self.device, self.rendezvous = traits, device, rendezvous
        self.local_rank, self.settings = local_rank, settings
        self._losses: list[torch.Tensor] = []

    def place(self, builder: ModelBuilder) -> torch.nn.Module:
        """See `Strategy`. Stages 1 and 2 replicate the weights; stage 3 shards them."""
        if not self.traits.shards_weights:
            llm = builder.build()
            builder.report(llm)
            return llm
        llm, weights = load_on_rank0(builder.load_base_on_cpu, builder.meta_init, builder.finish, self.rendezvous)
        builder.report(llm)
        partition(llm, weights, self.settings(builder.dtype), self.device, self.local_rank)
        return llm

    def attach(self, task: SupervisedFineTuning, optimizer: torch.optim.Optimizer) -> None:
        """See `Strategy`."""
        super().attach(task, optimizer)
        self.engine = ZeroEngine(task, optimizer, self.settings(task.dtype), self.local_rank)
        self.optimizer = self.engine.wrapped_optimizer

    def forward(self, micro_batch: MicroBatch) -> torch.Tensor:
        """See `Strategy`."""
        return self.engine(micro_batch)

    def backward(self, loss: torch.Tensor, is_last: bool) -> None:
        """See `Strategy`. The last micro-batch reduces gradients."""
        self._losses.append(loss.detach())
        self.engine.backward(loss, is_last)

    def reduce_and_clip(self, max_grad_norm: float | None) -> torch.Tensor:
        """Clip to the norm of DeepSpeed's configuration and update, unless a loss is non-finite; return the norm."""
        losses, self._losses = torch.stack(self._losses), []
        if all_reduce_sum((~losses.isfinite()).sum().float()).item():
            return losses.new_tensor(float('nan'))
        return self.engine.step().to(losses.device)

    def optimizer_step(self, values: torch.Tensor) -> list[float]:
        """Return `values` on the host; `reduce_and_clip` has already updated the weights."""
        return self.read(values)

    def zero_grad(self) -> None:
        """Do nothing: the engine drops gradients after its update."""

    def full_tensor(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        """See `Strategy`."""
        return self.engine.weight(parameter)

    def load_tensor(self, parameter: torch.nn.Parameter, value: torch.Tensor) -> None:
        """See `Strategy`."""
        self.engine.set_weight(parameter, value)

    def optimizer_state(self, parameter: torch.nn.Parameter) -> dict[str, Any]:
        """See `Strategy`."""
        return self.engine.states(parameter)

    def load_optimizer_state(self, parameters: list[torch.nn.Parameter], states: dict[int, dict[str, Any]]) -> None:
        """See `Strategy`."""
        self.engine.set_all_states(parameters, states)

    def close(self) -> None:
        """Remove the engine's hooks from the model."""
        self.engine.close()
