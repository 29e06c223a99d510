"""What follows from the name of a parallelism strategy. The only place, beside the strategies, that reads the name."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StrategyTraits:
    """Properties of a strategy.

    Attributes:
        name: `strategy.name`.
        zero_stage: Stage of DeepSpeed ZeRO, 1 to 3; 0 for other strategies.
        is_fsdp2: Weights, gradients and optimizer state are sharded by FSDP2.
        offloads: Shards are kept in CPU memory.
        single_device: The strategy is for one device.
    """

    name: str
    zero_stage: int = 0
    is_fsdp2: bool = False
    offloads: bool = False
    single_device: bool = False

    @property
    def is_zero(self) -> bool:
        """Whether DeepSpeed runs the strategy."""
        return self.zero_stage > 0

    @property
    def shards_weights(self) -> bool:
        """Whether each rank holds a shard of the weights, and not the full model."""
        return self.is_fsdp2 or self.zero_stage == 3

    @property
    def is_replicated(self) -> bool:
        """Whether each rank holds the full model, its gradients and its optimizer state."""
        return not self.is_zero and not self.is_fsdp2


ONE_DEVICE = StrategyTraits('one_device', single_device=True)
TRAITS: dict[str, StrategyTraits] = {
    traits.name: traits
    for traits in (
        ONE_DEVICE,
        StrategyTraits('ddp'),
        StrategyTraits('zero1', zero_stage=1),
        StrategyTraits('zero2', zero_stage=2),
        StrategyTraits('zero2_offload', zero_stage=2, offloads=True),
        StrategyTraits('zero3', zero_stage=3),
        StrategyTraits('zero3_offload', zero_stage=3, offloads=True),
        StrategyTraits('fsdp2', is_fsdp2=True),
        StrategyTraits('fsdp2_offload', is_fsdp2=True, offloads=True),
    )
}


def traits_of(name: str, num_ranks: int = 2) -> StrategyTraits:
    """Return the traits of strategy `name` in a run of `num_ranks` ranks: a single rank holds everything itself."""
    return TRAITS[name] if num_ranks > 1 else ONE_DEVICE
