"""Supervised fine-tuning of a causal language model: micro-batch -> summed loss. The step is in engine/trainer.py.

Shapes: B sequences of a micro-batch, S tokens of a sequence, padding included.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from mmengine.model import BaseModel

from ..data.batches import MicroBatch
from ..optimizations.cuda_graphs.runner import CudaGraphRunner
from ..optimizations.master_weights import MasterWeights
from ..optimizations.packed_attention import PackedAttention
from ..optimizations.recurrent_layers import flatten_packed, sample_boundary_kwargs
from ..parallel.fsdp import reshard
from ..parallel.ulysses import SequenceParallelGroup
from ..registry import TASKS
from .lm_head import LmHead
from .loss import summed_loss


@TASKS.register_module()
class SupervisedFineTuning(BaseModel):
    """A causal language model and its loss.

    Args:
        llm: The model, with or without an adapter, already on its device.
        dtype: The compute dtype; below float32 the forward pass runs under autocast, unless there are master weights.
        device: The compute device; default that of the weights, which offload keeps elsewhere.
        sp_group: The ranks that shard each sequence with this one, if any do.
        master_weights: float32 master weights; the model then computes in `dtype` without autocast.
        lm_head: The output layer, for chunked cross-entropy; None: the loss is computed from the logits.
        attention: Varlen attention over packed sequences, if the model uses it.
        graphs: The decoder layers as CUDA graphs, which hold memory between steps.
    """

    def __init__(
        self,
        llm: torch.nn.Module,
        dtype: torch.dtype,
        device: torch.device | None = None,
        *,
        sp_group: SequenceParallelGroup | None = None,
        master_weights: MasterWeights | None = None,
        lm_head: LmHead | None = None,
        attention: PackedAttention | None = None,
        graphs: CudaGraphRunner | None = None,
    ) -> None:
        super().__init__()
        self.llm, self.dtype, self.sp_group, self.attention = llm, dtype, sp_group, attention
        self.master_weights, self._lm_head = master_weights, (lm_head,)  # in a tuple: not a submodule of the task
        self.graphs = graphs
        self._device = device or next(llm.parameters()).device
        # Set if packed samples stay apart only with the arguments of `sample_boundary_kwargs`.
        self.boundaries = False

    @property
    def has_logits(self) -> bool:
        """Whether the loss is computed from materialized logits."""
        return self._lm_head[0] is None

    @property
    def device(self) -> torch.device:
        """The compute device."""
        return self._device

    def init_weights(self) -> None:
        """Do nothing: mmengine would initialize the loaded weights again."""

    def forward(self, batch: MicroBatch) -> torch.Tensor:
        """Return the loss summed over the label tokens of `batch`, a scalar."""
        batch = batch.to(self.device)
        arguments = self.sp_group.model_kwargs(batch.full_position_ids) if self.sp_group else {}
        if self.attention is not None:
            arguments |= self.attention.model_kwargs(batch)
        if self.boundaries:
            batch = flatten_packed(batch)
            arguments |= sample_boundary_kwargs(batch)
        with self.autocast():
            return summed_loss(self.llm, batch, self._lm_head[0], **arguments)

    @torch.no_grad()
    def val_step(self, data: list[MicroBatch]) -> tuple[float, int]:
        """Return the loss summed over the label tokens of `data`, and their number."""
        loss_sum = None
        while loss_sum is None:
            try:
                loss_sum = sum(self(batch).item() for batch in data)
            except torch.OutOfMemoryError:
                # Retry outside of this block, where the error no longer holds tensors, in the memory of the graphs.
                if self.graphs is None or not self.graphs.disable():
                    raise
        return loss_sum, sum(batch.num_targets for batch in data)

    def test_step(self, data: list[MicroBatch]) -> tuple[float, int]:
        """Return what `val_step` returns."""
        return self.val_step(data)

    @contextmanager
    def generation_mode(self) -> Iterator[None]:
        """Return a context for generation: full unpacked sequences on each rank, and no memory held by CUDA graphs."""
        if self.graphs is not None:
            self.graphs.release()  # the KV cache needs their memory
        with self.plain_sequences():
            yield

    def whole_rows(self) -> AbstractContextManager:
        """Return `generation_mode()`: the deprecated name, kept for one release."""
        return self.generation_mode()

    @contextmanager
    def plain_sequences(self) -> Iterator[None]:
        """Return a context for full unpacked sequences without varlen arguments; captured CUDA graphs stay."""
        plain_attention = self.attention.original_attention() if self.attention else nullcontext()
        context = self.sp_group.full_sequences() if self.sp_group else plain_attention
        # Eager: compiling for sequence lengths that training never sees takes longer than it saves.
        with context, torch.compiler.set_stance('force_eager'):
            yield

    def autocast(self) -> AbstractContextManager:
        """Return the context in which the model computes in its compute dtype."""
        if self.dtype == torch.float32 or self.master_weights is not None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def trained_parameters(self) -> dict[str, torch.nn.Parameter]:
        """Return the parameters of the optimizer by name: those of the model, or their master weights."""
        reshard(self.llm)  # the optimizer must get the shards
        trained = {name: p for name, p in self.llm.named_parameters() if p.requires_grad}
        if self.master_weights is None:
            return trained
        return {name: self.master_weights.of(p) for name, p in trained.items()}

    def drop_gradients(self) -> None:
        """Drop all gradients, of the model and of its master weights."""
        for parameter in (*self.llm.parameters(), *self.trained_parameters().values()):
            parameter.grad = None
