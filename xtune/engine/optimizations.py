"""Speed and memory features of a run: which apply, in the order in which they are applied.

Checkpointing of decoder layers is chosen while the model is built, and tuned by `auto_checkpointing.py`.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from ..compat.transformers_private import attention_of
from ..config.specs import StepSpec
from ..data.batches import PAD_MULTIPLE, PAD_TO_LONGEST, Padding
from ..errors import ModelError
from ..ops import compilation
from ..ops.varlen_attention import CAUSAL
from ..optimizations.activation_checkpointing import ActivationCheckpointing
from ..optimizations.cuda_graphs.capture import CudaGraphCapture
from ..optimizations.cuda_graphs.runner import CudaGraphRunner
from ..optimizations.cuda_graphs.wrap_step import capture_when_launch_bound
from ..optimizations.fused_lora import fuse_lora, has_custom_functions
from ..optimizations.master_weights import MasterWeights
from ..optimizations.packed_attention import PackedAttention, choose_attention, install_packed_attention
from ..parallel.ulysses import SequenceParallelGroup
from ..tasks.lm_head import LmHead, find_lm_head
from ..tasks.sft import SupervisedFineTuning
from ..utils.language_model import base_of
from .oom_retry import retry_on_oom
from .trainer import Trainer


@dataclass(frozen=True)
class Optimized:
    """A task with its optimizations; None or 0: it does not apply.

    Attributes:
        task: The task to train.
        wrappers: What the trainer applies around its step, in order.
        layers: The decoder layers; None: the model has no list of them.
    """

    task: SupervisedFineTuning
    wrappers: list[Callable[[Trainer], None]]
    layers: ActivationCheckpointing | None
    master_weights: MasterWeights | None = None
    lm_head: LmHead | None = None
    num_fused_lora: int = 0
    attention: PackedAttention | None = None
    is_compiled: bool = False
    graphs: CudaGraphRunner | None = None
    varlen_failed: bool = False

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield (label, text) lines for the summary of the run."""
        applied = {
            'float32 master weights': self.master_weights is not None,
            'chunked cross-entropy': self.lm_head is not None,
            _attention_name(self.attention): self.attention is not None,
            'fused LoRA': self.num_fused_lora > 0,
            'torch.compile': self.is_compiled,
            'CUDA graphs (if launch-bound)': self.graphs is not None,
        }
        yield (
            'speed',
            ', '.join(name for name, applies in applied.items() if applies) or 'no option of the section applies',
        )
        if self.varlen_failed:
            yield '', 'varlen attention off: the parity check against masked attention failed'


def optimize(
    spec: StepSpec,
    llm: torch.nn.Module,
    dtype: torch.dtype,
    device: torch.device,
    sp_group: SequenceParallelGroup | None,
    num_ranks: int,
) -> Optimized:
    """Apply the optimizations of a run to its model, in order, and choose those around its step.

    Most need the full model on each rank (`replicated`), as they change weights or layers in place.
    """
    replicated, speed = spec.is_replicated(num_ranks), spec.speed
    # 1. fp32 master weights: the model computes in bf16 without casts.
    master_weights = (
        MasterWeights(llm, dtype) if replicated and speed.master_weights and dtype != torch.float32 else None
    )
    one_dtype = replicated and (master_weights is not None or dtype == torch.float32)
    # 2. Chunked cross-entropy instead of logits.
    lm_head = find_lm_head(llm) if one_dtype and speed.chunked_cross_entropy else None
    # 3. A frozen linear layer and its LoRA as one operation.
    num_fused = fuse_lora(llm, dtype) if one_dtype and speed.fused_lora else 0
    # 4. Varlen attention over packed sequences instead of a mask, if the parity check passes.
    may_varlen = replicated and sp_group is None
    attention = _varlen_attention(spec, llm, dtype, device, master_weights) if may_varlen else None
    # 5. torch.compile of each decoder layer, checkpointed or not.
    layers = checkpointable_layers(llm)
    is_compiled = layers is not None and compiles(spec, device, num_ranks)
    if is_compiled:
        layers.compile(custom_functions=has_custom_functions(llm))
    # 6. CUDA graphs of the compiled layers.
    graphs = None
    if is_compiled and master_weights is not None and device.type == 'cuda' and speed.cuda_graphs:
        graphs = CudaGraphRunner(layers, device, CudaGraphCapture(device))
    # Around the step. 7. Retry with more checkpointing, unless ranks that share the model would wait in a collective.
    wrappers = []
    if layers is not None and may_varlen:
        wrappers.append(retry_on_oom(layers, graphs))
    # 8. Capture and replay in launch-bound steps.
    if graphs is not None:
        wrappers.append(capture_when_launch_bound(graphs))
    task = SupervisedFineTuning(
        llm,
        dtype,
        device,
        sp_group=sp_group,
        master_weights=master_weights,
        lm_head=lm_head,
        attention=attention,
        graphs=graphs,
    )
    failed = attention is None and may_varlen and _varlen_expected(spec, llm, dtype, device)
    return Optimized(task, wrappers, layers, master_weights, lm_head, num_fused, attention, is_compiled, graphs, failed)


def compiles(spec: StepSpec, device: torch.device, num_ranks: int) -> bool:
    """Return whether decoder layers are compiled."""
    return spec.is_replicated(num_ranks) and spec.speed.compile and compilation.can_compile(device)


def padding(packing: str, max_length: int, compiled: bool) -> Padding:
    """Return how sequences are padded: `compiled` layers get few shapes, and packed sequences one."""
    if not compiled:
        return PAD_TO_LONGEST
    if packing == 'none':
        return Padding(multiple=PAD_MULTIPLE)
    return Padding(min_length=max_length, with_positions=packing != 'stream')


def checkpointable_layers(llm: torch.nn.Module) -> ActivationCheckpointing | None:
    """Return the decoder layers of `llm`, each of which may be checkpointed; None: it has no list of them."""
    try:
        return ActivationCheckpointing(llm)
    except ModelError:
        return None


def _varlen_attention(
    spec: StepSpec,
    llm: torch.nn.Module,
    dtype: torch.dtype,
    device: torch.device,
    master_weights: MasterWeights | None,
) -> PackedAttention | None:
    if not spec.speed.varlen_attention:
        return None
    casts = master_weights is None and dtype != torch.float32
    autocast = torch.autocast(device.type, dtype=dtype) if casts else nullcontext()
    return install_packed_attention(
        llm, dtype, device, spec.model.max_length, autocast, spec.is_packed, spec.speed.flash_attention_3
    )


def _varlen_expected(spec: StepSpec, llm: torch.nn.Module, dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether the config of the model allows varlen attention: without it, the parity check failed."""
    config, length = base_of(llm).config, spec.model.max_length
    name = choose_attention(config, attention_of(config), dtype, device.type, length, spec.is_packed)
    return spec.speed.varlen_attention and name is not None


def _attention_name(attention: PackedAttention | None) -> str:
    name = 'unmasked attention' if attention and attention.name == CAUSAL else 'varlen attention'
    return f'{name} ({attention.kernel})' if attention and attention.kernel else name
