"""Build the parts of a training step of a run, with the code of `xtune train`, on meta and fake tensors or on a GPU."""

from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ..config.specs import StepSpec
from ..config.strategy_traits import traits_of
from ..data.batches import MicroBatch
from ..engine.optimizations import Optimized, optimize
from ..engine.optimizer import build_optimizer, uses_fused_kernel
from ..engine.prepare_model import add_meta_adapter
from ..methods.meta_model import build_meta_model
from .attention import attention_for_fake_tensors
from .optimizer_state import (
    FakeBitsandbytesOptimizer,
    as_on_gpu,
    is_bitsandbytes,
    is_paged,
    paged_state_bytes,
    state_bytes_per_parameter,
)


@dataclass(frozen=True)
class StepBuilder:
    """Builds model, task, optimizer and micro-batch of a run.

    Args:
        step: The optimizer step of the run.
        config: The config of its base model.
        dtype: Its compute type.
        device: Where steps run with values; None: on fake tensors.
    """

    step: StepSpec
    config: PreTrainedConfig
    dtype: torch.dtype
    device: torch.device | None = None

    def base_model(self) -> PreTrainedModel:
        """Return the base model on the meta device.

        Raises:
            ModelError: It cannot be built, or its quantization is not supported.
        """
        attention = None
        if self.device is None:
            requested, length = self.step.model.attn_implementation, self.step.model.max_length
            varlen = self.step.speed.varlen_attention
            attention = attention_for_fake_tensors(
                self.config, self.dtype, requested, length, self.step.is_packed, varlen
            )
        return build_meta_model(self.step.model, self.config, self.dtype, attention)

    def with_adapter(self, model: PreTrainedModel) -> torch.nn.Module:
        """Return a meta model with the adapter of the run.

        Raises:
            ModelError: The adapter does not fit the model.
        """
        return add_meta_adapter(model, self.step.model)

    def optimize(self, model: torch.nn.Module) -> Optimized:
        """Return the training task of a materialized model, with its optimizations, in training mode."""
        with redirect_stdout(StringIO()):
            device = self.device or torch.device('cpu')
            optimized = optimize(self.step, model, self.dtype, device, None, num_ranks=1)
        optimized.task.train()
        return optimized

    def optimizer(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimizer; without a device one that allocates on fake tensors what it would allocate on a GPU.

        Raises:
            ConfigError: It refuses its arguments.
        """
        traits = traits_of(self.step.strategy.name)
        if self.device is not None:
            return build_optimizer(self.step.optimizer, traits, parameters)
        if is_bitsandbytes(self.step.optimizer):
            return FakeBitsandbytesOptimizer(parameters, self.step.optimizer.func.__name__)
        return as_on_gpu(
            build_optimizer(self.step.optimizer, traits, parameters), uses_fused_kernel(self.step.optimizer, traits)
        )

    def optimizer_bytes_per_parameter(self) -> float:
        """Return the bytes of optimizer state per trained value.

        Raises:
            ConfigError: The optimizer refuses its arguments.
        """
        return state_bytes_per_parameter(replace(self, device=None).optimizer)

    def paged_bytes(self, parameters: list[torch.nn.Parameter]) -> int:
        """Return the bytes of optimizer state that the allocator of a GPU does not count."""
        if self.device is None or not is_paged(self.step.optimizer):
            return 0
        return paged_state_bytes(self.optimizer_bytes_per_parameter(), parameters)

    def micro_batch(self, vocabulary: int) -> MicroBatch:
        """Return a micro-batch of full sequences of random tokens."""
        size, length = self.step.schedule.batch_size, self.step.model.max_length
        return full_batch(vocabulary, size, length, self.step.is_packed)


def full_batch(vocabulary: int, sequences: int, length: int, packed: bool = False) -> MicroBatch:
    """Return `sequences` of `length` random tokens, all of them trained; if `packed`, with two samples each."""
    ids = torch.randint(vocabulary, (sequences, length))
    batch = MicroBatch.unpacked(ids, ids.roll(-1, 1))
    if not packed:
        return batch
    half = -(-length // 2)
    starts = [sequence * length + start for sequence in range(sequences) for start in (0, half)]
    positions = torch.arange(length).remainder(half).expand(sequences, length)
    cu_seqlens = torch.tensor([*starts, sequences * length], dtype=torch.int32)
    return replace(batch, position_ids=positions, cu_seqlens=cu_seqlens, max_seqlen=half)
