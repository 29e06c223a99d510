"""Attach a saved adapter to a model and verify that every tensor was loaded. peft only warns about lost tensors."""

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.utils import load_peft_weights
from transformers import PreTrainedModel

from ..errors import ModelError
from ..models.loading.config_json import reason
from ..models.loading.folder_checks import check_adapter_folder
from ..models.loading.verify import refuse_non_finite
from ..models.loading.weight_files import listed
from .resized_embeddings import fit_vocabulary

# A module of a single expert, as transformers had them before version 5.
_SINGLE_EXPERT = re.compile(r'\.experts\.\d+\.')
# Initializations that change the base and cannot be reproduced as in training.
_UNREPRODUCIBLE_INIT = re.compile(r'pissa_niter_\d+|corda|lora_ga')


def attach_adapter(llm: PreTrainedModel, folder: str) -> PeftModel:
    """Return `llm` with the adapter of the local `folder`; embeddings are resized to the rows of the adapter.

    Raises:
        ModelError: The adapter lacks a tensor, has one that `llm` does not have, or contains NaN or infinity.
    """
    path, values = str(Path(folder).expanduser()), check_adapter_folder(folder)
    _refuse_unreproducible_init(folder, values)
    tensors = load_peft_weights(path, device='cpu')
    for name, tensor in tensors.items():
        refuse_non_finite(folder, name, tensor)
    fit_vocabulary(llm, folder, tensors, values)
    old_experts = sorted(name for name in tensors if _SINGLE_EXPERT.search(name))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # about missing keys, which are errors below
        try:
            model = PeftModel.from_pretrained(llm, path)
        except (ValueError, KeyError, RuntimeError) as error:
            if old_experts:
                raise _old_experts_error(folder, old_experts, reason(error)) from error
            raise _mismatch_error(folder, values, error) from error
        expected = set(get_peft_model_state_dict(model, save_embedding_layers=False))
        missing = sorted(expected - set(tensors))
        unexpected = set(tensors) - expected - set(model.state_dict())
        if unexpected:  # embeddings saved with an adapter have other names in the model
            unexpected -= set(get_peft_model_state_dict(model, save_embedding_layers=True))
        if old_experts and (missing or unexpected):  # tensors that peft converted have other names now
            unconverted = _unconverted_tensors(model, path)
            if unconverted:
                raise _old_experts_error(folder, unconverted, 'peft does not find their modules')
            return model
    if missing:
        raise ModelError(f'the adapter {folder} lacks {listed(missing)}, which its adapter_config.json requires')
    if unexpected:
        raise ModelError(
            f'the adapter {folder} contains {listed(sorted(unexpected))}, which the model does not have: it was '
            f'trained on another base{_base_in_parentheses(values)}, or with other layer names'
        )
    return model


def other_base(adapter: str, base: str) -> str | None:
    """Return the base that the adapter folder `adapter` was trained on if its name differs from `base`, else None.

    Only the last component of the names is compared, so a model that was moved or downloaded counts as the same.
    """
    trained_on = check_adapter_folder(adapter).get('base_model_name_or_path')
    if not trained_on or _last_component(trained_on) == _last_component(base):
        return None
    paths = Path(trained_on).expanduser(), Path(base).expanduser()
    return None if all(path.exists() for path in paths) and paths[0].samefile(paths[1]) else trained_on


def _last_component(name: str) -> str:
    return name.rstrip('/').rpartition('/')[2].lower()


def _base_in_parentheses(values: dict[str, Any]) -> str:
    name = values.get('base_model_name_or_path')
    return f' ({name})' if name else ''


def _mismatch_error(folder: str, values: dict[str, Any], error: Exception) -> ModelError:
    """Return the error for an adapter with mismatched shapes, or one that peft rejects for another reason."""
    shapes = re.search(r'size mismatch for (\S+): .*?torch\.Size\((\[.*?\]).*?torch\.Size\((\[.*?\])', str(error))
    if shapes is None:
        return ModelError(f'the adapter {folder} cannot be attached to the model: {reason(error)}')
    return ModelError(
        f'the adapter {folder} does not fit the model: {shapes[1]} is {shapes[2]} in the adapter and {shapes[3]} in '
        f'the model; use the base that it was trained on{_base_in_parentheses(values)}'
    )


def _refuse_unreproducible_init(folder: str, values: dict[str, Any]) -> None:
    init = values.get('init_lora_weights')
    if isinstance(init, str) and _UNREPRODUCIBLE_INIT.fullmatch(init):
        raise ModelError(
            f'the adapter {folder} was initialized from base weights that were then subtracted from the base '
            f'(init_lora_weights={init!r}), and the folder does not contain them: save it as a plain LoRA, in peft '
            'with path_initial_model_for_weight_conversion, in xtune by training again'
        )


def _unconverted_tensors(model: PeftModel, path: str) -> list[str]:
    """Return the tensors that peft could not assign, or did not fill, when it converted old names to the model's."""
    result = model.load_adapter(path, 'default')
    parameters: dict[str, torch.Tensor] = dict(model.named_parameters())
    adapter = get_peft_model_state_dict(model, parameters, save_embedding_layers=False)
    trained = {id(tensor) for tensor in adapter.values()}
    missing = [name for name in result.missing_keys if name in parameters and id(parameters[name]) in trained]
    return sorted(result.unexpected_keys) or sorted(missing)


def _old_experts_error(folder: str, names: list[str], why: str) -> ModelError:
    return ModelError(
        f'the adapter {folder} was made with transformers before 5, which had separate modules for each expert; now '
        f'the experts of a layer are one tensor, and {listed(names, 2)} cannot be converted ({why.rstrip(".")}): merge '
        'the adapter with transformers 4 and use the merged model'
    )
