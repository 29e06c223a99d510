"""What is refused before anything slow: what does not go together, is missing, or cannot fit."""

import torch
from transformers import PreTrainedConfig

from ..config.wire import Job
from ..errors import ModelError
from ..models import float8_checks
from ..models.build import run_dtype
from ..models.config_checks import check_attention, length_warning
from ..models.positions import check_length
from ..models.recompute import check_count
from ..models.small_copy import small_copy
from ..models.targets import refuse_targets
from ..parallel import compatibility, sequence_check
from ..parallel.world import World
from ..parallel.zero import require_deepspeed
from ..planning import refusal
from ..planning.frame import model_config
from . import packing_check
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


def model(job: Job, device: torch.device) -> None:
    """Refuse what the model cannot do, as far as its config.json tells; warn of rows that it is not made for.

    Raises:
        XtuneError: It has fewer layers than shall recompute, cannot attend as section `llm` says, has fewer positions
            than max_length, or does not keep packed samples apart.
    """
    try:
        config = model_config(job)
    except ModelError:  # whether it can be loaded is found out then
        return
    count, known = job.values.checkpointing, getattr(config.get_text_config(), 'num_hidden_layers', None)
    if isinstance(count, int) and known is not None:
        check_count(count, known)
    check_attention(config, job.load_llm.keywords.get('attn_implementation'))
    check_length(config, job.values.max_length)
    _targets(job, config)
    refused = packing_check.early_refusal(job, config, device)
    if refused:
        raise ModelError(refused)
    warning = length_warning(config, job.values.max_length)
    if warning:
        print(f'warning: {warning}')


def _targets(job: Job, config: PreTrainedConfig) -> None:
    """Refuse adapters on layers that are linear by their class only, which a small copy of the model has too."""
    wanted = job.lora.keywords.get('target_modules', 'all-linear') if job.lora is not None else 'all-linear'
    copy = small_copy(config, torch.device('cpu')) if wanted != 'all-linear' else None
    if copy is not None:
        refuse_targets(copy, wanted)


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
