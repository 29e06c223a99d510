"""The task: supervised fine-tuning of a causal language model, as a mmengine model.

One call of `train_step` is one optimizer step: all its micro-batches, one normalisation, one update.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from mmengine.model import BaseModel

from ..data.batches import MicroBatch
from ..engine.nan_report import explain
from ..engine.oom_retry import Retry
from ..optimizations.activation_checkpointing import ActivationCheckpointing
from ..optimizations.cuda_graphs.runner import CudaGraphRunner
from ..optimizations.master_weights import MasterWeights
from ..optimizations.packed_attention import PackedAttention
from ..optimizations.recurrent_layers import flatten_packed, sample_boundary_kwargs
from ..parallel.collectives import all_reduce_counts, all_reduce_sum
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
        dtype: The compute type; below float32 the forward pass runs under autocast.
        device: Where it computes; default where its weights are, which offload keeps elsewhere.
        sp_group: The ranks that shard sequences with this one, if any.
        masters: The float32 masters of what is trained; the model then computes in `dtype` without autocast.
        head: Lets the loss do without logits.
        attention: How the model attends over packed rows, if by where samples begin.
        layers: Those that may recompute more when memory runs out; None: that ends the run.
        graphs: The layers as CUDA graphs, where the GPU waits.
    """

    def __init__(
        self,
        llm: torch.nn.Module,
        dtype: torch.dtype,
        device: torch.device | None = None,
        sp_group: SequenceParallelGroup | None = None,
        masters: MasterWeights | None = None,
        head: LmHead | None = None,
        attention: PackedAttention | None = None,
        layers: ActivationCheckpointing | None = None,
        graphs: CudaGraphRunner | None = None,
    ) -> None:
        super().__init__()
        self.llm, self.dtype, self.sp_group, self.attention = llm, dtype, sp_group, attention
        self.masters, self._head = masters, (head,)  # in a tuple: no submodule of this one
        self._device = device or next(llm.parameters()).device
        self._retry = Retry(self, layers) if layers is not None else None
        self.graphs = graphs
        # Packed rows need the arguments of `sample_boundary_kwargs`.
        self.boundaries = False

    @property
    def has_logits(self) -> bool:
        """Whether the loss is computed from logits that are there as a whole."""
        return self._head[0] is None

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self._device

    def init_weights(self) -> None:
        """Do nothing: the weights are loaded, and mmengine would initialise them again."""

    def forward(self, batch: MicroBatch) -> torch.Tensor:
        """Return the loss summed over the trained tokens of `batch`."""
        batch = batch.to(self.device)
        more = self.sp_group.model_kwargs(batch.row_positions) if self.sp_group else {}
        if self.attention is not None:
            more |= self.attention.model_kwargs(batch)
        if self.boundaries:
            batch = flatten_packed(batch)
            more |= sample_boundary_kwargs(batch)
        with self.autocast():
            return summed_loss(self.llm, batch, self._head[0], **more)

    @contextmanager
    def whole_rows(self) -> Iterator[None]:
        """Let the model take whole rows in each process, as generation gives them."""
        if self.graphs is not None:
            self.graphs.release()  # caches of keys and values are to have their memory
        with self.plain_sequences():
            yield

    @contextmanager
    def plain_sequences(self) -> Iterator[None]:
        """Let the model take unpacked sequences without varlen arguments; captured CUDA graphs stay."""
        around = self.attention.original_attention() if self.attention else nullcontext()
        # Layers would be compiled for lengths that training never sees again.
        with self.sp_group.full_sequences() if self.sp_group else around, torch.compiler.set_stance('force_eager'):
            yield

    def train_step(
        self, data: list[MicroBatch], optim_wrapper: Any, stop: Callable[[], bool] = lambda: False
    ) -> dict[str, Any]:
        """Do one optimizer step on the micro-batches `data` of this process, together with the other processes.

        Args:
            data: Micro-batches, as many in every process.
            optim_wrapper: The optimizer.
            stop: Tells whether this process was asked to stop; asked at the end of the step.

        Returns:
            Of all processes: `loss` (mean over the step's trained tokens), `grad_norm` (before clipping), `tokens` (of
            samples, without padding), `trained_tokens`, `stop` (some process was asked to).

        Raises:
            NonFiniteStep: The loss or a gradient is NaN or infinite; the weights are as before the step.
            OutOfMemory: The step does not fit, though all layers recompute.
        """
        began = time.perf_counter()
        trained, tokens = all_reduce_counts(sum(batch.trained for batch in data), sum(batch.tokens for batch in data))
        trained = max(trained, 1)
        with self.graphs.training_step() if self.graphs is not None else nullcontext():
            loss_sum = (self._retry or self).add_gradients(data, optim_wrapper, trained)
        grad_norm = optim_wrapper.clip()
        loss_sum, stops = all_reduce_sum(torch.stack([loss_sum, loss_sum.new_full((), float(stop()))])).unbind()
        grad_norm = grad_norm.float().to(loss_sum.device)  # offloaded gradients have theirs on the CPU
        values = torch.stack([loss_sum / trained, grad_norm, stops])
        # The update is queued first: the device is waited for once a step, when nothing of it remains to be queued.
        queued = optim_wrapper.step_if_finite(values) and self._write_back()
        asked = time.perf_counter()
        loss, grad_norm, stops = values.tolist()
        now = time.perf_counter()
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise explain(self, data, loss, grad_norm)
        if not queued:
            optim_wrapper.step()
            self._write_back()
        optim_wrapper.zero_grad()
        if self.graphs is not None:
            self.graphs.end_step((now - asked) / (now - began) * len(data))
        return dict(loss=loss, grad_norm=grad_norm, tokens=tokens, trained_tokens=trained, stop=stops > 0)

    def _write_back(self) -> bool:
        if self.masters is not None:
            self.masters.write_back()
        return True

    def add_gradients(self, data: list[MicroBatch], optim_wrapper: Any, trained: int) -> torch.Tensor:
        """Add the gradients of the micro-batches `data`, divided by `trained`; return their summed loss, a scalar."""
        sums = []
        for number, batch in enumerate(data, 1):
            loss_sum = optim_wrapper.loss(self, batch)
            optim_wrapper.backward(loss_sum / trained, last=number == len(data))
            sums.append(loss_sum.detach())
        return torch.stack(sums).sum()

    def drop_gradients(self) -> None:
        """Forget all gradients, also those that are on their way to a master."""
        for parameter in (*self.llm.parameters(), *self.trained_parameters().values()):
            parameter.grad = None

    @torch.no_grad()
    def val_step(self, data: list[MicroBatch]) -> tuple[float, int]:
        """Return the loss summed over the trained tokens of `data`, and their count."""
        loss_sum = None
        while loss_sum is None:
            try:
                loss_sum = sum(self(batch).item() for batch in data)
            except torch.OutOfMemoryError:
                # Again in the memory of the graphs, but not here: the error holds what did not fit.
                if self.graphs is None or not self.graphs.disable():
                    raise
        return loss_sum, sum(batch.trained for batch in data)

    def test_step(self, data: list[MicroBatch]) -> tuple[float, int]:
        """Return what `val_step` returns."""
        return self.val_step(data)

    def trained_parameters(self) -> dict[str, torch.nn.Parameter]:
        """Return the parameters that the optimizer changes, by name: those of the model, or their masters."""
        reshard(self.llm)  # the optimizer must get the slices
        own = {name: p for name, p in self.llm.named_parameters() if p.requires_grad}
        return own if self.masters is None else {name: self.masters.of(p) for name, p in own.items()}

    def autocast(self) -> AbstractContextManager:
        """Return the context in which the model computes in its compute type."""
        if self.dtype == torch.float32 or self.masters is not None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)
