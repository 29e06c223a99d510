"""Checks before any slow work: incompatible options, missing packages, models that cannot be trained."""

import copy
from dataclasses import replace
from functools import partial

import torch
from transformers import PreTrainedConfig

from ..config.adapter_start import changes_base
from ..config.strategy_traits import traits_of
from ..config.wire import Job
from ..data.resolve_map_fn import check_map_fns
from ..errors import ConfigError, ModelError, TemplateError
from ..methods import float8_checks, tied_embeddings
from ..methods.base_model import run_dtype
from ..methods.lora_effects import check_skipped
from ..methods.meta_model import build_meta_model
from ..methods.quantized_checkpoints import check_prequantized_base, is_dequantized, method_of_stored
from ..models.legacy.hub import legacy_folder
from ..models.loading.config_checks import check_attention, length_warning, stored_quantization
from ..models.loading.hf_config import load_hf_config
from ..models.loading.model_class import auto_class, refuse_text_settings
from ..optimizations.activation_checkpointing import CheckpointPolicy
from ..parallel import compatibility, ulysses_check
from ..parallel.env import World
from ..parallel.zero import require_deepspeed
from ..templates.resolve import check_name
from . import hooks, ineffective_options, packing_check
from .context_limit import check_length
from .prepare_model import add_meta_adapter
from .runner_keys import check_runner
from .zero_config import zero_config

# Starts of an adapter that are computed from the weights of the base, by the beginning of their names.
_OF_WEIGHTS = ('pissa', 'olora', 'loftq', 'eva', 'corda', 'lora_ga', 'mica')


def options(job: Job, world: World) -> None:
    """Refuse options that the run would never apply, and note others that have no effect.

    Raises:
        ConfigError: There are some.
    """
    found, names = (
        [],
        dict.fromkeys([job.values.chat_template, *filter(None, (one.chat_template for one in job.sources))]),
    )
    for check in (
        lambda: check_runner(job.runner, handled=('load_from',)),
        lambda: hooks.resolve_custom_hooks(job.runner.get('custom_hooks')),
        lambda: ineffective_options.check(job),
        lambda: check_map_fns(job.sources),
        *(partial(check_name, name) for name in names),
    ):
        try:
            check()
        except (ConfigError, TemplateError) as error:
            found.append(str(error))
    if found:
        raise ConfigError('\n'.join(found))
    for note in ineffective_options.notes(job, world.size):
        print(f'note: {note}')


def strategy(job: Job, world: World, device: torch.device) -> None:
    """Refuse incompatible methods, strategies, devices and libraries.

    Raises:
        XtuneError: They do not.
    """
    name = job.strategy.name
    compatibility.check(compatibility.method_of_run(job), name, world.size)
    float8_checks.check_float8(job.model, device)
    ulysses_check.check_devices(job.strategy.sequence_parallel_size, world.size)
    if traits_of(name, world.size).is_zero:
        require_deepspeed()
        zero_config(job, world.size, run_dtype(job.model, device))  # for what it refuses
    if world.size == 1 and not traits_of(name).is_replicated:
        print(f'note: strategy {name} shards the run over several devices; this run has one, so nothing is sharded')


def model(job: Job, device: torch.device) -> None:
    """Refuse what the model cannot do, as far as its config.json tells; warn of rows that it is not made for.

    Raises:
        XtuneError: It has fewer layers than shall recompute, cannot attend as section `llm` says, has fewer positions
            than max_length, does not keep packed samples apart, its type has no class that continues text, or the
            section `lora` does not fit it.
    """
    try:
        config = load_hf_config(job.values.base_model, job.load_llm)
    except ModelError:  # whether it can be loaded is found out then
        return
    if legacy_folder(job.values.base_model) is None:
        auto_class(config, bool(job.load_llm.keywords.get('trust_remote_code')))
        refuse_text_settings(config, job.load_llm.keywords)
    count, known = job.values.activation_checkpointing, getattr(config.get_text_config(), 'num_hidden_layers', None)
    if known is not None:
        CheckpointPolicy.from_option(count).check(known)
    check_attention(config, job.load_llm.keywords.get('attn_implementation'))
    check_length(config, job.values.max_length)
    refused = packing_check.early_refusal(job, config, device)
    if refused:
        raise ModelError(refused)
    warning = length_warning(config, job.values.max_length)
    if warning:
        print(f'warning: {warning}')
    if job.lora is not None:
        _adapter(job, config)


def _adapter(job: Job, config: PreTrainedConfig) -> None:
    """Add the adapter to the meta model, which refuses a section `lora` that does not fit.

    Raises:
        ModelError: The section `lora` does not fit the model.
    """
    plain = copy.deepcopy(config)
    if getattr(plain, 'quantization_config', None) is not None:
        del plain.quantization_config  # names of modules are the same without
    # Some starts need the values of the weights; peft refuses their names in this case too.
    start = job.lora.keywords.get('init_lora_weights')
    of_weights = isinstance(start, str) and start.startswith(_OF_WEIGHTS)
    lora = partial(job.lora, init_lora_weights=True) if of_weights else job.lora
    plain_job = replace(job, quantization=None, lora=lora)
    try:
        model = build_meta_model(plain_job.model, plain, torch.float32)
    except ModelError:  # it may be code that only runs with weights; names are compared once it is loaded
        return
    check_skipped(job.quantization, model)
    add_meta_adapter(model, plain_job.model)


def base(job: Job, world: World, device: torch.device) -> None:
    """Refuse, or warn of, what does not go with how the base is stored and what of it is shared.

    Raises:
        XtuneError: It does not go.
    """
    try:
        config = load_hf_config(job.values.base_model, job.load_llm)
    except ModelError:
        return
    settings = stored_quantization(config)
    check_prequantized_base(job.model, config, device)
    if settings is not None and not is_dequantized(settings):
        compatibility.check(method_of_stored(settings), job.strategy.name, world.size)
    if not _looks_at_weights(job, config):
        return
    try:
        model = build_meta_model(job.model, config, torch.bfloat16)
    except ModelError:
        return
    said = tied_embeddings.tied_embeddings_warning(add_meta_adapter(model, job.model))
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
