"""What is refused before anything slow: what does not go together, is missing, or cannot fit."""

import torch

from ..config.wire import Job
from ..errors import ModelError
from ..models import float8_checks
from ..models.build import run_dtype
from ..models.config_checks import check_attention, length_warning
from ..models.legacy.hub import legacy_folder
from ..models.model_class import auto_class, refuse_text_settings
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


def model(job: Job) -> None:
    """Refuse what the model cannot do, as far as its config.json tells; warn of rows that it is not made for.

    Raises:
        XtuneError: It has fewer layers than shall recompute, or cannot attend as section `llm` says, or
            its type has no class that continues text.
    """
    try:
        config = model_config(job)
    except ModelError:  # whether it can be loaded is found out then
        return
    if legacy_folder(job.values.base_model) is None:
        auto_class(config, bool(job.load_llm.keywords.get('trust_remote_code')))
        refuse_text_settings(config, job.load_llm.keywords)
    count, known = job.values.checkpointing, getattr(config.get_text_config(), 'num_hidden_layers', None)
    if isinstance(count, int) and known is not None:
        check_count(count, known)
    check_attention(config, job.load_llm.keywords.get('attn_implementation'))
    warning = length_warning(config, job.values.max_length)
    if warning:
        print(f'warning: {warning}')


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
