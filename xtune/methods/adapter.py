"""Attach the adapter of section `lora` to the base model."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from transformers import PreTrainedModel

from ..config.adapter_start import changes_base
from ..errors import ModelError
from ..models.loading.config_json import reason
from ..ops.float8_linear import refuse_trained
from ..utils.language_model import exclude_non_text_modules, refuse_adapter_outside_text
from ..utils.quiet import quiet
from .lora_effects import check_adapted
from .lora_names import check_names
from .lora_targets import resolve_targets
from .residual_init import InitialAdapter, subtract_initial_adapter


def add_adapter(
    model: PreTrainedModel,
    lora: partial,
    initial: InitialAdapter | None = None,
    broadcast: Callable[[torch.Tensor], Any] | None = None,
) -> PeftModel:
    """Return `model`, frozen, with the adapter of section `lora` in float32.

    Args:
        model: The base model; on the meta device the adapter has no values either.
        lora: The class of the section with its arguments.
        initial: The initial adapter of the checkpoint that is resumed (see residual_init.py).
        broadcast: Overwrites a tensor in place with that of rank 0.

    Raises:
        ModelError: The adapter does not fit the model.
        CheckpointError: `initial` belongs to another adapter.
    """
    init = lora.keywords.get('init_lora_weights')
    if not changes_base(init):
        return _attach(model, lora)
    model = _attach(model, partial(lora, init_lora_weights=True))
    subtract_initial_adapter(model, init, initial, broadcast)
    model.peft_config['default'].init_lora_weights = init  # for checkpoints
    return model


def _attach(model: PreTrainedModel, lora: partial) -> PeftModel:
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    try:
        with quiet():
            config = lora()
            if getattr(config, 'is_prompt_learning', False):
                raise ValueError(
                    f'{type(config).__name__} prepends virtual tokens to the text, which the loss does not support'
                )
            user_config = copy.deepcopy(config)  # the next two functions and peft change `config`
            check_names(user_config, model)
            exclude_non_text_modules(model, config)
            note = resolve_targets(model, config)
            model = get_peft_model(model, config)
            check_adapted(user_config, model)
            refuse_trained(model)
            refuse_adapter_outside_text(model)
            for parameter in model.parameters():  # peft keeps modules_to_save in the base's type
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()
        if note:
            print(f'note: {note}')
        return model
    except ModelError:
        raise
    except (ValueError, TypeError, KeyError, ImportError) as error:
        raise ModelError(f'the adapter of section `lora` does not fit the model: {reason(error)}') from error
