"""A run's model without weights, from config.json alone: whole on the meta device, or some of its layers on any other.

On the meta device tensors have shapes and types; filling.py gives them storage.
"""

import copy
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.quantizers import AutoHfQuantizer

from ..config.loader_keys import check_llm_keys, check_taken
from ..config.wire import Job
from ..errors import ModelError
from ..methods.build import finish, quantisation_of
from ..methods.float8_checks import float8_of
from ..models.legacy.hub import legacy_folder
from ..models.loading.config_json import reason
from ..models.loading.folder_checks import check_model_folder
from ..models.loading.meta_init import META
from ..models.loading.model_class import LOCATION_ARGUMENTS, auto_class, refuse_text_settings
from ..ops.float8_linear import to_float8_base
from ..utils.model_structure import layers_of
from ..utils.quiet import quiet
from .attention import counted_attention

Kind = tuple


def model_config(job: Job) -> PreTrainedConfig:
    """Return the config of the base model of `job`, with what the section `llm` changes in it.

    Raises:
        ConfigError: A key of the section `llm` has no effect.
        ModelError: It cannot be found or read, or the section `llm` names a loader of its own.
    """
    name, given = job.values.base_model, job.load_llm.keywords
    check_taken(job.load_llm.func, given)
    if getattr(job.load_llm.func, '__name__', '') != 'from_pretrained':
        raise ModelError(f'only llm.type={job.load_llm.func} knows what it builds, so there is nothing to plan from')
    check_model_folder(name, weights=False)
    folder = legacy_folder(name, revision=given.get('revision'))
    try:
        with quiet():
            if folder is not None:
                from ..models.legacy.families import open_legacy

                config = open_legacy(folder, given.get('variant')).config
            else:
                found = {key: value for key, value in given.items() if key in LOCATION_ARGUMENTS}
                own = bool(given.get('trust_remote_code'))
                config = AutoConfig.from_pretrained(name, trust_remote_code=own, **found)
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise ModelError(f'config.json of the model `{name}` cannot be read: {reason(error)}') from error
    return with_llm_values(config, given)


def with_llm_values(config: PreTrainedConfig, given: dict[str, Any]) -> PreTrainedConfig:
    """Return a copy of `config` with what the section `llm` changes in it.

    Raises:
        ConfigError: A key of that section has no effect.
    """
    config = copy.deepcopy(config)
    refuse_text_settings(config, given)
    check_llm_keys(given, config)
    for key, value in given.items():
        if hasattr(config, key) and not callable(getattr(config, key)) and key not in ('dtype', 'attn_implementation'):
            setattr(config, key, value)
    return config


def frame(job: Job, config: PreTrainedConfig, dtype: torch.dtype, counted: bool = True) -> PreTrainedModel:
    """Return the base model on the meta device, for a run that computes in `dtype`; quantised layers are in place.

    `counted` says that it will have no values.

    Raises:
        ModelError: It cannot be built, or is quantised in a way that is not counted.
    """
    config = copy.deepcopy(config)
    stored = getattr(config, 'quantization_config', None)
    if stored is not None:
        method = stored.get('quant_method') if isinstance(stored, dict) else getattr(stored, 'quant_method', None)
        if method != 'mxfp4':  # which transformers unpacks to train it
            raise ModelError(f'weights that are stored quantised ({method}) are not planned; take a base that is not')
        del config.quantization_config
    attention = (counted_attention(job, config, dtype) if counted else None) or job.load_llm.keywords.get(
        'attn_implementation'
    )
    wanted = {} if attention is None else {'attn_implementation': attention}
    weights = dtype if job.lora is not None else torch.float32
    quantization = quantisation_of(job, dtype)
    try:
        with quiet(), META:
            own = bool(job.load_llm.keywords.get('trust_remote_code'))
            model = auto_class(config, own).from_config(config, dtype=weights, trust_remote_code=own, **wanted)
            if quantization is not None:
                if quantization.quant_method != 'bitsandbytes':
                    raise ModelError(
                        f'{type(quantization).__name__} is not planned, only BitsAndBytesConfig and Float8Config'
                    )
                quantizer = AutoHfQuantizer.from_config(quantization, pre_quantized=False)
                quantizer.preprocess_model(model, device_map={'': 'cpu'})
                quantizer.postprocess_model(model)
            if float8_of(job) is not None:
                to_float8_base(model, float8_of(job))
    except ModelError:
        raise
    except (ValueError, ImportError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise ModelError(f'the model `{job.values.base_model}` cannot be built: {reason(error)}') from error
    model.config.use_cache = False
    return model


def adapted(model: PreTrainedModel, job: Job) -> PreTrainedModel | PeftModel:
    """Return a frame with the adapter of `job` on it, which recomputes activations as that says."""
    with META:
        return finish(model, job).train()


def kinds(model: PreTrainedModel) -> list[Kind]:
    """Return for each layer what tells it from layers that cost something else: its modules' types and shapes."""
    types = getattr(model.config.get_text_config(), 'layer_types', None) or ()
    found = []
    for number, layer in enumerate(layers_of(model)):
        shapes = tuple((name, tuple(p.shape)) for name, p in layer.named_parameters())
        found.append((types[number] if number < len(types) else None, type(layer).__name__, shapes))
    return found


def keep_layers(model: PreTrainedModel, chosen: list[int]) -> None:
    """Leave only the layers with the numbers `chosen` in a frame, in that order."""
    count = len(layers_of(model))
    for module in model.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.ModuleList) and list(child) == layers_of(model):
                setattr(module, name, torch.nn.ModuleList([child[number] for number in chosen]))
                _keep_in_config(model.config.get_text_config(), count, chosen)
                return


def _keep_in_config(config: PreTrainedConfig, count: int, chosen: list[int]) -> None:
    types = getattr(config, 'layer_types', None)
    config.num_hidden_layers = len(chosen)
    if types and len(types) == count:
        config.layer_types = [types[number] for number in chosen]
