"""Applies the optimizations of section `speed` to a run."""

from contextlib import nullcontext

import torch

from ..compat.transformers_private import attention_of
from ..config.wire import Job
from ..data.batches import PAD_MULTIPLE, PAD_TO_LONGEST, Padding
from ..errors import ModelError
from ..ops import compilation
from ..ops.varlen_attention import CAUSAL
from ..optimizations.activation_checkpointing import ActivationCheckpointing
from ..optimizations.cuda_graphs.capture import CudaGraphCapture
from ..optimizations.cuda_graphs.runner import CudaGraphRunner
from ..optimizations.fused_lora import fuse_lora, has_custom_functions
from ..optimizations.master_weights import MasterWeights
from ..optimizations.packed_attention import PackedAttention, choose_attention, install_packed_attention
from ..parallel.env import World
from ..parallel.ulysses import SequenceParallelGroup
from ..tasks.lm_head import find_lm_head
from ..tasks.sft import SupervisedFineTuning
from ..utils.language_model import base_of
from . import summary
from .auto_checkpointing import has_whole_model
from .packing_check import is_packed


def compiles(job: Job, device: torch.device, world: World) -> bool:
    """Return whether layers are compiled."""
    return has_whole_model(job, world.size) and job.speed.compile and compilation.can_compile(device)


def padding(job: Job, compiled: bool) -> Padding:
    """Return the padding of sequences: `compiled` layers need few shapes; packed sequences have one."""
    if not compiled:
        return PAD_TO_LONGEST
    if job.values.packing == 'none':
        return Padding(multiple=PAD_MULTIPLE)
    return Padding(min_length=job.values.max_length, with_positions=job.values.packing != 'stream')


def optimized_task(
    job: Job,
    llm: torch.nn.Module,
    dtype: torch.dtype,
    device: torch.device,
    sp_group: SequenceParallelGroup | None,
    world: World,
) -> SupervisedFineTuning:
    """Return the task of a run, with the optimizations of section `speed` that the run supports."""
    whole = has_whole_model(job, world.size)
    masters = MasterWeights(llm, dtype) if whole and job.speed.master_weights and dtype != torch.float32 else None
    one_type = whole and (masters is not None or dtype == torch.float32)
    head = find_lm_head(llm) if one_type and job.speed.chunked_cross_entropy else None
    adapters = fuse_lora(llm, dtype) if one_type and job.speed.fused_lora else 0
    attention = _attention(job, llm, dtype, device, masters) if whole and sp_group is None else None
    layers = checkpointable_layers(llm)
    compiled = layers is not None and compiles(job, device, world)
    if compiled:
        layers.compile(custom_functions=has_custom_functions(llm))
    graphs = None
    if compiled and masters is not None and device.type == 'cuda' and job.speed.cuda_graphs:
        graphs = CudaGraphRunner(layers, device, CudaGraphCapture(device))
    optimizations = {
        'float32 master weights': masters,
        'chunked cross-entropy': head,
        _name(attention): attention,
        'fused LoRA': adapters or None,
        'torch.compile': compiled or None,
        'CUDA graphs (if launch-bound)': graphs,
    }
    on = [name for name, thing in optimizations.items() if thing is not None]
    lines = [('speed', ', '.join(on) or 'no option of the section applies')]
    if attention is None and whole and sp_group is None and _supports_packed_attention(job, llm, dtype, device):
        lines.append(('', 'varlen attention off: the parity check against masked attention failed'))
    summary.show(iter(lines))
    # Ranks that share sequences or weights would wait in a collective for one that retries.
    may_retry = layers if whole and sp_group is None else None
    return SupervisedFineTuning(llm, dtype, device, sp_group, masters, head, attention, may_retry, graphs)


def checkpointable_layers(llm: torch.nn.Module) -> ActivationCheckpointing | None:
    """Return the decoder layers of `llm` for activation checkpointing; None: it has no list of layers."""
    try:
        return ActivationCheckpointing(llm)
    except ModelError:
        return None


def _attention(
    job: Job, llm: torch.nn.Module, dtype: torch.dtype, device: torch.device, masters: MasterWeights | None
) -> PackedAttention | None:
    if not job.speed.varlen_attention:
        return None
    casts = masters is None and dtype != torch.float32
    context = torch.autocast(device.type, dtype=dtype) if casts else nullcontext()
    return install_packed_attention(
        llm, dtype, device, job.values.max_length, context, is_packed(job), job.speed.flash_attention_3
    )


def _supports_packed_attention(job: Job, llm: torch.nn.Module, dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether the config allows attention without masks. If it is not used, the parity check failed."""
    config, length = base_of(llm).config, job.values.max_length
    name = choose_attention(config, attention_of(config), dtype, device.type, length, is_packed(job))
    return job.speed.varlen_attention and name is not None


def _name(attention: PackedAttention | None) -> str:
    name = 'unmasked attention' if attention and attention.name == CAUSAL else 'varlen attention'
    return f'{name} ({attention.kernel})' if attention and attention.kernel else name
