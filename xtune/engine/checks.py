"""What is refused before anything slow: what does not go together, is missing, or cannot fit."""

import torch

from ..config.wire import Job
from ..errors import ModelError
from ..models import float8_checks
from ..models.build import run_dtype
from ..models.recompute import check_count
from ..parallel import compatibility, sequence_check
from ..parallel.world import World
from ..parallel.zero import require_deepspeed
from ..planning import refusal
from ..planning.frame import model_config
from .zero_config import zero_config


def strategy(job: Job, world: World, device: torch.device) -> None:
    """Refuse methods, strategies, devices and libraries that do not go together.

    Raises:
        XtuneError: They do not.
    """
    name = job.strategy.name
    compatibility.check(compatibility.method_of_run(job), name, world.size)
    float8_checks.check(job, device)
    sequence_check.check_devices(job.strategy.sequence_parallel_size, world.size)
    if world.size > 1 and name.startswith('zero'):
        require_deepspeed()
        zero_config(job, world.size, run_dtype(job, device))  # for what it refuses
    if world.size == 1 and name not in ('one_device', 'ddp'):
        print(
            f'note: strategy {name} spreads the run over several devices; this run has one, so there is nothing to '
            'spread'
        )


def layers(job: Job) -> None:
    """Refuse to recompute more layers than the model has, as far as its config.json tells.

    Raises:
        XtuneError: It has fewer.
    """
    count = job.values.checkpointing
    if not isinstance(count, int):
        return
    try:
        known = getattr(model_config(job).get_text_config(), 'num_hidden_layers', None)
    except ModelError:  # whether it can be loaded is found out then
        return
    if known is not None:
        check_count(count, known)


def memory(job: Job, world: World, device: torch.device) -> None:
    """Refuse what cannot fit, before data are prepared and weights are loaded.

    Raises:
        XtuneError: It cannot.
    """
    if device.type != 'cuda' or (world.size > 1 and job.strategy.name not in ('one_device', 'ddp')):
        return
    try:
        least = refusal.floor(job, run_dtype(job, device))
    except ModelError:  # of a model that cannot be counted; whether it can be loaded is found out then
        return
    properties = torch.cuda.get_device_properties(device)
    refusal.check(job, least, properties.total_memory, properties.name)
