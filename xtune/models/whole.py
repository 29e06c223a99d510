"""After loading: every weight of the model came from its files, and is a number."""

from typing import Any

import torch
from transformers import PreTrainedModel

from ..errors import ModelError
from .weights import listed, refuse_non_finite


def checked(name: str, llm: PreTrainedModel, info: dict[str, Any]) -> PreTrainedModel:
    """Return `llm` if the files of `name` held all its weights; transformers fills what is missing with random ones.

    Args:
        name: Folder or hub name, for the message.
        llm: A loaded model.
        info: What from_pretrained reports with output_loading_info.

    Raises:
        ModelError: A weight was missing, or holds NaN or infinity.
    """
    missing = sorted(info['missing_keys'])
    # Files that are quantised already hold other tensors than the model names.
    if missing and not getattr(llm.config, 'quantization_config', None):
        hint = ', and its config.json does not tie it to the embedding' if missing == ['lm_head.weight'] else ''
        raise ModelError(f'the weights of {name} lack {listed(missing)}{hint}; they are not whole, copy them again')
    for key, parameter in llm.named_parameters():
        if parameter.device != torch.device('meta'):
            refuse_non_finite(name, key, parameter.detach())
    return llm
