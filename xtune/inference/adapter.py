"""Put a saved adapter on a model, and make sure that all of it arrived: peft warns, and leaves out what is lost."""

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
from ..models.loading.weight_files import listed, refuse_non_finite
from .resized_embeddings import fit_vocabulary

# A layer of one expert, as transformers had them before version 5.
_EXPERT = re.compile(r'\.experts\.\d+\.')
# Starts of an adapter that change the base, and that cannot be done again as they were done in training.
_LOST_STARTS = re.compile(r'pissa_niter_\d+|corda|lora_ga')


def with_adapter(llm: PreTrainedModel, folder: str) -> PeftModel:
    """Return `llm` with the adapter in the local `folder` on it, and as many rows of embeddings as the adapter has.

    Raises:
        ModelError: The adapter lacks a tensor, has one without a place in `llm`, or holds NaN or infinity.
    """
    path, values = str(Path(folder).expanduser()), check_adapter_folder(folder)
    _refuse_start(folder, values)
    found = load_peft_weights(path, device='cpu')
    for name, tensor in found.items():
        refuse_non_finite(folder, name, tensor)
    fit_vocabulary(llm, folder, found, values)
    old_experts = sorted(name for name in found if _EXPERT.search(name))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # of keys that are lost; here they are an error
        try:
            model = PeftModel.from_pretrained(llm, path)
        except (ValueError, KeyError, RuntimeError) as error:
            if old_experts:
                raise _old_experts(folder, old_experts, reason(error)) from error
            raise _misfit(folder, values, error) from error
        wanted = set(get_peft_model_state_dict(model, save_embedding_layers=False))
        lost = sorted(wanted - set(found))
        spare = set(found) - wanted - set(model.state_dict())
        if spare:  # the embeddings that peft saves beside an adapter are named otherwise in the model
            spare -= set(get_peft_model_state_dict(model, save_embedding_layers=True))
        if old_experts and (lost or spare):  # what peft fitted to the model by itself goes by other names now
            left = _not_converted(model, path)
            if left:
                raise _old_experts(folder, left, 'peft finds no place for them')
            return model
    if lost:
        raise ModelError(f'the adapter {folder} lacks {listed(lost)}, which its adapter_config.json calls for')
    if spare:
        raise ModelError(
            f'the adapter {folder} holds {listed(sorted(spare))}, for which the model has no place: it was trained on '
            f'another base{_named(values)}, or with other names of layers'
        )
    return model


def other_base(adapter: str, base: str) -> str | None:
    """Return the base that the adapter in a folder was trained on if it goes by another name than `base`, else None.

    A model that was moved, or fetched to a folder of its own name, is the same.
    """
    trained_on = check_adapter_folder(adapter).get('base_model_name_or_path')
    if not trained_on or _last(trained_on) == _last(base):
        return None
    paths = Path(trained_on).expanduser(), Path(base).expanduser()
    return None if all(path.exists() for path in paths) and paths[0].samefile(paths[1]) else trained_on


def _last(name: str) -> str:
    return name.rstrip('/').rpartition('/')[2].lower()


def _named(values: dict[str, Any]) -> str:
    name = values.get('base_model_name_or_path')
    return f' ({name})' if name else ''


def _misfit(folder: str, values: dict[str, Any], error: Exception) -> ModelError:
    """Return the error of an adapter whose tensors have other shapes, or that peft refuses for another reason."""
    shapes = re.search(r'size mismatch for (\S+): .*?torch\.Size\((\[.*?\]).*?torch\.Size\((\[.*?\])', str(error))
    if shapes is None:
        return ModelError(f'the adapter {folder} cannot be put on the model: {reason(error)}')
    return ModelError(
        f'the adapter {folder} does not fit the model: {shapes[1]} is {shapes[2]} in the adapter and {shapes[3]} in '
        f'the model; take the base that it was trained on{_named(values)}'
    )


def _refuse_start(folder: str, values: dict[str, Any]) -> None:
    start = values.get('init_lora_weights')
    if isinstance(start, str) and _LOST_STARTS.fullmatch(start):
        raise ModelError(
            f'the adapter {folder} belongs to a base that lacks a part of its weights, chosen when the training began '
            f'(init_lora_weights={start!r}), and the folder does not hold that part: save it as an ordinary LoRA, in '
            'peft with path_initial_model_for_weight_conversion, in xtune by training again'
        )


def _not_converted(model: PeftModel, path: str) -> list[str]:
    """Return the tensors that found no place, or got no values, when peft fitted old names to the model."""
    result = model.load_adapter(path, 'default')
    own: dict[str, torch.Tensor] = dict(model.named_parameters())
    trained = {id(tensor) for tensor in get_peft_model_state_dict(model, own, save_embedding_layers=False).values()}
    missing = [name for name in result.missing_keys if name in own and id(own[name]) in trained]
    return sorted(result.unexpected_keys) or sorted(missing)


def _old_experts(folder: str, names: list[str], why: str) -> ModelError:
    return ModelError(
        f'the adapter {folder} was made with transformers before 5, where each expert had layers of its own; now the '
        f'experts of a layer are one tensor, to which {listed(names, 2)} cannot be fitted ({why.rstrip(".")}): merge '
        'the adapter with transformers 4, and use the merged model'
    )
