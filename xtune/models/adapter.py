"""Put a saved adapter on a model, and make sure that all of it arrived: peft warns, and leaves out what is lost."""

import warnings
from pathlib import Path

from peft import PeftModel, get_peft_model_state_dict
from peft.utils import load_peft_weights
from transformers import PreTrainedModel

from ..errors import ModelError
from .weights import listed, refuse_non_finite


def with_adapter(llm: PreTrainedModel, folder: str) -> PeftModel:
    """Return `llm` with the adapter in the local `folder` on it.

    Raises:
        ModelError: The adapter lacks a tensor, has one without a place in `llm`, or holds NaN or infinity.
    """
    path = str(Path(folder).expanduser())
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # of keys that are lost; here they are an error
        model = PeftModel.from_pretrained(llm, path)
    found = load_peft_weights(path, device='cpu')
    for name, tensor in found.items():
        refuse_non_finite(folder, name, tensor)
    wanted = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    lost = sorted(wanted - set(found))
    spare = sorted(set(found) - wanted - set(model.state_dict()))
    if lost:
        raise ModelError(f'the adapter {folder} lacks {listed(lost)}, which its adapter_config.json calls for')
    if spare:
        raise ModelError(
            f'the adapter {folder} holds {listed(spare)}, for which the model has no place: it was trained on another '
            'base, or with other names of layers'
        )
    return model
