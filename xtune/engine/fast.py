"""Which of the things that make a step fast apply to a run."""

import torch

from ..config.wire import Job
from ..models.finetune import SupervisedFineTuning
from ..models.head import plain_head
from ..models.layers import layers_of
from ..models.masters import Masters
from ..parallel.sequence import Team
from ..parallel.world import World
from . import summary


def fast_task(
    job: Job, llm: torch.nn.Module, dtype: torch.dtype, device: torch.device, team: Team | None, world: World
) -> SupervisedFineTuning:
    """Return the task of a run, with what the section `speed` asks for and the run allows."""
    # What is sliced is gathered by the strategy, in its own types.
    whole = world.size == 1 or job.strategy.name in ('one_device', 'ddp')
    masters = Masters(llm, dtype) if whole and job.speed.masters and dtype != torch.float32 else None
    head = plain_head(llm) if whole and job.speed.fused_loss and (masters or dtype == torch.float32) else None
    compiled = whole and job.speed.compile and device.type == 'cuda'
    for layer in layers_of(llm) if compiled else ():
        layer.compile()
    found = {'float32 masters': masters, 'loss without logits': head, 'compiled layers': compiled or None}
    on = [name for name, thing in found.items() if thing is not None]
    summary.show(iter([('speed', ', '.join(on) or 'nothing of the section applies')]))
    return SupervisedFineTuning(llm, dtype, device, team, masters, head)
