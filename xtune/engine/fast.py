"""Which of the things that make a step fast apply to a run."""

from contextlib import nullcontext

import torch

from ..config.wire import Job
from ..data.batches import CLOSE, Padding
from ..models.finetune import SupervisedFineTuning
from ..models.head import plain_head
from ..models.layers import layers_of
from ..models.masters import Masters
from ..models.packed import PackedAttention, packed_attention
from ..parallel.sequence import Team
from ..parallel.world import World
from . import summary

# Rows that are not packed are filled up to a multiple of this when layers are compiled.
MULTIPLE = 64


def padding(job: Job, device: torch.device, world: World) -> Padding:
    """Return how rows are filled up: for compiled layers to few shapes, of which packed rows have one."""
    if not _compiles(job, device, world):
        return CLOSE
    if job.values.pack:
        return Padding(width=job.values.max_length, fixed=True)
    return Padding(multiple=MULTIPLE, fixed=True)


def fast_task(
    job: Job, llm: torch.nn.Module, dtype: torch.dtype, device: torch.device, team: Team | None, world: World
) -> SupervisedFineTuning:
    """Return the task of a run, with what the section `speed` asks for and the run allows."""
    whole = _whole(job, world)
    masters = Masters(llm, dtype) if whole and job.speed.masters and dtype != torch.float32 else None
    head = plain_head(llm) if whole and job.speed.fused_loss and (masters or dtype == torch.float32) else None
    attention = _attention(job, llm, dtype, device, masters) if whole and team is None else None
    compiled = _compiles(job, device, world)
    for layer in layers_of(llm) if compiled else ():
        layer.compile()
    found = {
        'float32 masters': masters,
        'loss without logits': head,
        'varlen attention': attention,
        'compiled layers': compiled or None,
    }
    on = [name for name, thing in found.items() if thing is not None]
    summary.show(iter([('speed', ', '.join(on) or 'nothing of the section applies')]))
    return SupervisedFineTuning(llm, dtype, device, team, masters, head, attention)


def _whole(job: Job, world: World) -> bool:
    """Return whether each device has the whole model: what is sliced is gathered by the strategy, in its own types."""
    return world.size == 1 or job.strategy.name in ('one_device', 'ddp')


def _compiles(job: Job, device: torch.device, world: World) -> bool:
    return _whole(job, world) and job.speed.compile and device.type == 'cuda'


def _attention(
    job: Job, llm: torch.nn.Module, dtype: torch.dtype, device: torch.device, masters: Masters | None
) -> PackedAttention | None:
    if not job.speed.varlen or job.values.packing in ('none', 'stream'):
        return None
    casts = masters is None and dtype != torch.float32
    context = torch.autocast(device.type, dtype=dtype) if casts else nullcontext()
    return packed_attention(llm, dtype, device, job.values.max_length, context)
