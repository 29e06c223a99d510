"""After loading: every weight of the model came from its files, and is a number."""

from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import PreTrainedModel

from ...errors import ModelError
from .weight_files import listed, refuse_non_finite

# Tensors that older versions of transformers saved and later ones compute.
_COMPUTED = ('inv_freq', '.masked_bias', '.attn.bias', '.attention.bias', 'position_ids')

# What transformers raises while it loads a model that it cannot make sense of.
FAILURES = (
    OSError,
    ValueError,
    ImportError,
    KeyError,
    RuntimeError,
    TypeError,
    SafetensorError,
    StrictDataclassError,
)


def checked(name: str, llm: PreTrainedModel, info: dict[str, Any]) -> PreTrainedModel:
    """Return `llm` if the files of `name` are all its weights; transformers fills what is missing with random ones.

    Args:
        name: Folder or hub name, for the message.
        llm: A loaded model.
        info: What from_pretrained reports with output_loading_info.

    Raises:
        ModelError: A weight is missing, of another shape, belongs to no layer, or holds NaN or infinity.
    """
    # Files that are quantised already hold other tensors than the model names.
    if not getattr(getattr(llm, 'hf_quantizer', None), 'pre_quantized', False):
        _compare(name, llm, info)
    for key, parameter in llm.named_parameters():
        if parameter.device != torch.device('meta'):
            refuse_non_finite(name, key, _numbers(parameter))
    return llm


def _numbers(parameter: torch.nn.Parameter) -> torch.Tensor:
    """Return what of a weight are numbers: of a packed 4-bit one its scales, as NaN in a block is NaN in its scale.

    Scales that are quantised too have their mean beside them.
    """
    state = getattr(parameter, 'quant_state', None)
    if state is None:
        return parameter.detach()
    return state.offset.reshape(1) if state.nested else state.absmax


def _compare(name: str, llm: PreTrainedModel, info: dict[str, Any]) -> None:
    for key, found, wanted in sorted(info['mismatched_keys']):
        raise ModelError(
            f'{name}: {key} has the shape {list(found)}, config.json calls for {list(wanted)}; the weights and '
            'config.json are not of one model'
        )
    missing = sorted(info['missing_keys'])
    if missing:
        hint = ', and its config.json does not tie it to the embedding' if missing == ['lm_head.weight'] else ''
        raise ModelError(f'the weights of {name} lack {listed(missing)}{hint}; they are not whole, copy them again')
    # Parts beside the language model, such as an image encoder, have a first name of their own.
    own = {key.split('.')[0] for key, _ in llm.named_parameters()}
    spare = sorted(k for k in info['unexpected_keys'] if k.split('.')[0] in own and not k.endswith(_COMPUTED))
    if spare:
        raise ModelError(
            f'the weights of {name} hold {listed(spare)}, for which its config.json has no place (num_hidden_layers is '
            f'{getattr(llm.config, "num_hidden_layers", None)}); the weights and config.json are not of one model'
        )
