"""Checks before any slow work: incompatible options, missing packages, models that cannot be trained.

They combine sections, so each takes the whole job.
"""

import copy
from dataclasses import replace
from functools import partial

import torch
from transformers import PreTrainedConfig

from ..config.adapter_start import changes_base
from ..config.specs import ModelSpec, is_packed
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
from .optimizer_checks import check_optimizer
from .prepare_model import add_meta_adapter
from .runner_keys import check_runner
from .zero_config import zero_config

# Values of lora.init_lora_weights that are computed from the weights of the base, by their first letters.
_FROM_WEIGHTS = ('pissa', 'olora', 'loftq', 'eva', 'corda', 'lora_ga', 'mica')


def options(job: Job, world: World) -> None:
    """Refuse options that the run would never apply, and note others that have no effect.

    Raises:
        ConfigError: There are some.
    """
    templates = dict.fromkeys([job.values.chat_template, *filter(None, (one.chat_template for one in job.sources))])
    problems = []
    for check in (
        lambda: check_runner(job.runner, handled=('load_from',)),
        lambda: hooks.resolve_custom_hooks(job.runner.get('custom_hooks')),
        lambda: ineffective_options.check(job),
        lambda: check_map_fns(job.sources),
        *(partial(check_name, name) for name in templates),
    ):
        try:
            check()
        except (ConfigError, TemplateError) as error:
            problems.append(str(error))
    if problems:
        raise ConfigError('\n'.join(problems))
    for note in ineffective_options.notes(job, world.size):
        print(f'note: {note}')


def strategy(job: Job, world: World, device: torch.device) -> None:
    """Refuse incompatible methods, strategies, devices and libraries.

    Raises:
        XtuneError: They are incompatible, or a library is missing.
    """
    name, traits = job.strategy.name, traits_of(job.strategy.name, world.size)
    compatibility.check(compatibility.method_of_model(job.model), name, world.size)
    float8_checks.check_float8(job.model, device)
    ulysses_check.check_devices(job.strategy.sequence_parallel_size, world.size)
    if traits.is_zero:
        require_deepspeed()
        # Only for the errors it raises.
        zero_config(job.strategy, job.schedule, job.lora is not None, world.size, run_dtype(job.model, device))
    check_optimizer(job.optimizer, job.lora is not None, traits, device)
    if world.size == 1 and not traits_of(name).is_replicated:
        print(f'note: strategy {name} shards the run over several devices; this run has one, so nothing is sharded')


def model(job: Job, device: torch.device) -> None:
    """Refuse options that the model does not support, as far as its config.json tells; warn of long sequences.

    Raises:
        XtuneError: It has fewer layers than are to be checkpointed, lacks the attention implementation of the section
            `llm`, has fewer positions than max_length, does not keep packed samples independent, has no class for
            causal language modeling, or the section `lora` does not fit it.
    """
    try:
        config = load_hf_config(job.values.base_model, job.load_llm)
    except ModelError:  # loading the model reports it
        return
    if legacy_folder(job.values.base_model) is None:
        auto_class(config, bool(job.load_llm.keywords.get('trust_remote_code')))
        refuse_text_settings(config, job.load_llm.keywords)
    count, known = job.values.activation_checkpointing, getattr(config.get_text_config(), 'num_hidden_layers', None)
    if known is not None:
        CheckpointPolicy.from_option(count).check(known)
    check_attention(config, job.model.attn_implementation)
    check_length(config, job.values.max_length)
    if is_packed(job.values.packing):
        refusal = packing_check.early_refusal(config, job.model.attn_implementation, device)
        if refusal:
            raise ModelError(refusal)
    warning = length_warning(config, job.values.max_length)
    if warning:
        print(f'warning: {warning}')
    if job.lora is not None:
        _check_adapter(job.model, config)


def _check_adapter(spec: ModelSpec, config: PreTrainedConfig) -> None:
    """Add the adapter to the meta model, which refuses a section `lora` that does not fit.

    Raises:
        ModelError: The section `lora` does not fit the model.
    """
    plain = copy.deepcopy(config)
    if getattr(plain, 'quantization_config', None) is not None:
        del plain.quantization_config  # module names do not depend on it
    # peft cannot compute these initial values on the meta device.
    init = spec.lora.keywords.get('init_lora_weights')
    from_weights = isinstance(init, str) and init.startswith(_FROM_WEIGHTS)
    lora = partial(spec.lora, init_lora_weights=True) if from_weights else spec.lora
    plain_spec = replace(spec, quantization=None, lora=lora)
    try:
        model = build_meta_model(plain_spec, plain, torch.float32)
    except ModelError:  # its code may need weights; module names are checked once it is loaded
        return
    check_skipped(spec.quantization, model)
    add_meta_adapter(model, plain_spec)


def base(job: Job, world: World, device: torch.device) -> None:
    """Refuse options that a quantized checkpoint does not support; warn of adapters on tied embeddings.

    Raises:
        XtuneError: An option is not supported.
    """
    try:
        config = load_hf_config(job.values.base_model, job.load_llm)
    except ModelError:
        return
    settings = stored_quantization(config)
    check_prequantized_base(job.model, config, device)
    if settings is not None and not is_dequantized(settings):
        compatibility.check(method_of_stored(settings), job.strategy.name, world.size)
    if job.lora is None or not _depends_on_weights(job.lora.keywords, config):
        return
    try:
        model = build_meta_model(job.model, config, torch.bfloat16)
    except ModelError:
        return
    warning = tied_embeddings.tied_embeddings_warning(add_meta_adapter(model, job.model))
    if warning:
        print(f'warning: {warning}')


def _depends_on_weights(lora: dict, config: PreTrainedConfig) -> bool:
    """Return whether the adapter may not fit the weights: it changes the base, or may train tied embeddings."""
    tied = any(getattr(one, 'tie_word_embeddings', False) for one in (config, config.get_text_config()))
    trains_modules = any(lora.get(name) for name in ('modules_to_save', 'trainable_token_indices'))
    may_train_embeddings = trains_modules or lora.get('target_modules') != 'all-linear'
    return changes_base(lora.get('init_lora_weights')) or (tied and may_train_embeddings)
