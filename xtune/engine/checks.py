"""What is refused before anything slow: what does not go together, is missing, or cannot fit."""

import torch
from transformers import PreTrainedConfig

from ..config.wire import Job
from ..errors import ModelError
from ..models import float8_checks, tied
from ..models.adapter_checks import check_start
from ..models.build import run_dtype
from ..models.config_checks import check_attention, length_warning, stored_settings
from ..models.recompute import check_count
from ..models.residual_init import changes_base
from ..models.stored_checks import check_stored, is_unpacked, row_of_stored
from ..parallel import compatibility, sequence_check
from ..parallel.world import World
from ..parallel.zero import require_deepspeed
from ..planning import refusal
from ..planning.frame import adapted, frame, model_config
from .zero_config import zero_config


def strategy(job: Job, world: World, device: torch.device) -> None:
    """Refuse methods, strategies, devices and libraries that do not go together.

    Raises:
        XtuneError: They do not.
    """
    name = job.strategy.name
    compatibility.check(compatibility.method_of_run(job), name, world.size)
    float8_checks.check(job, device)
    check_start(job)
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
        XtuneError: It has fewer layers than shall recompute, or cannot attend as section `llm` says.
    """
    try:
        config = model_config(job)
    except ModelError:  # whether it can be loaded is found out then
        return
    count, known = job.values.checkpointing, getattr(config.get_text_config(), 'num_hidden_layers', None)
    if isinstance(count, int) and known is not None:
        check_count(count, known)
    check_attention(config, job.load_llm.keywords.get('attn_implementation'))
    warning = length_warning(config, job.values.max_length)
    if warning:
        print(f'warning: {warning}')


def base(job: Job, world: World, device: torch.device) -> None:
    """Refuse, or warn of, what does not go with how the base is stored and what of it is shared.

    Raises:
        XtuneError: It does not go.
    """
    try:
        config = model_config(job)
    except ModelError:
        return
    settings = stored_settings(config)
    check_stored(job, config, device)
    if settings is not None and not is_unpacked(settings):
        compatibility.check(row_of_stored(settings), job.strategy.name, world.size)
    if not _looks_at_weights(job, config):
        return
    try:
        model = frame(job, config, torch.bfloat16)
    except ModelError:
        return
    said = tied.warning(adapted(model, job))
    if said:
        print(f'warning: {said}')


def _looks_at_weights(job: Job, config: PreTrainedConfig) -> bool:
    """Tell whether the adapter may not fit the weights: it starts as a part of them, or may change shared ones."""
    if job.lora is None:
        return False
    lora, texts = job.lora.keywords, (config, config.get_text_config())
    shared = any(getattr(text, 'tie_word_embeddings', False) for text in texts)
    beside = any(lora.get(name) for name in ('modules_to_save', 'trainable_token_indices'))
    named = beside or lora.get('target_modules') != 'all-linear'
    return changes_base(lora.get('init_lora_weights')) or (shared and named)


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
