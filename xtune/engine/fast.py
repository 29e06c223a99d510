"""Which of the things that make a step fast apply to a run."""

import torch

from ..config.wire import Job
from ..errors import ModelError
from ..models import compiling
from ..models.finetune import SupervisedFineTuning
from ..models.head import plain_head
from ..models.masters import Masters
from ..models.recompute import Recomputation
from ..parallel.sequence import Team
from ..parallel.world import World
from . import summary
from .fitting import has_whole_model


def fast_task(
    job: Job, llm: torch.nn.Module, dtype: torch.dtype, device: torch.device, team: Team | None, world: World
) -> SupervisedFineTuning:
    """Return the task of a run, with what the section `speed` asks for and the run allows."""
    # What is sliced is gathered by the strategy, in its own types.
    whole = has_whole_model(job, world.size)
    masters = Masters(llm, dtype) if whole and job.speed.masters and dtype != torch.float32 else None
    head = plain_head(llm) if whole and job.speed.fused_loss and (masters or dtype == torch.float32) else None
    layers = layers_to_choose(llm)
    compiled = whole and job.speed.compile and layers is not None and compiling.works(device)
    if compiled:
        layers.compile()
    found = {'float32 masters': masters, 'loss without logits': head, 'compiled layers': compiled or None}
    on = [name for name, thing in found.items() if thing is not None]
    summary.show(iter([('speed', ', '.join(on) or 'nothing of the section applies')]))
    # A process that lacks memory would leave those waiting that split its rows or its weights.
    may_retry = layers if whole and team is None else None
    return SupervisedFineTuning(llm, dtype, device, team, masters, head, may_retry)


def layers_to_choose(llm: torch.nn.Module) -> Recomputation | None:
    """Return the layers of `llm`, each of which may recompute; None: it has no list of them."""
    try:
        return Recomputation(llm)
    except ModelError:
        return None
