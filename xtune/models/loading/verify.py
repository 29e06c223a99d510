"""Post-load check: no missing, unexpected, misshapen or non-finite weights."""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import PreTrainedModel

from ...errors import ModelError
from .weight_files import listed

# Buffers that older versions of transformers saved and later ones compute.
_COMPUTED = ('inv_freq', '.masked_bias', '.attn.bias', '.attention.bias', 'position_ids')

# Exceptions that transformers raises for a model that it cannot load.
LOADING_ERRORS = (
    OSError,
    ValueError,
    ImportError,
    KeyError,
    RuntimeError,
    TypeError,
    SafetensorError,
    StrictDataclassError,
)


def verify_weights(name: str, llm: PreTrainedModel, info: dict[str, Any]) -> PreTrainedModel:
    """Return `llm` if its checkpoint provided every weight. transformers initializes missing weights at random.

    Args:
        name: Folder or hub name, for error messages.
        llm: A loaded model.
        info: The loading info that from_pretrained returns with output_loading_info=True.

    Raises:
        ModelError: A weight is missing, has the wrong shape, belongs to no module, or contains NaN or infinity.
    """
    # Pre-quantized checkpoints store tensors under other names than those of the model's parameters.
    if not getattr(getattr(llm, 'hf_quantizer', None), 'pre_quantized', False):
        _verify_names_and_shapes(name, llm, info)
    for key, parameter in llm.named_parameters():
        if parameter.device != torch.device('meta'):
            refuse_non_finite(name, key, _float_values(parameter))
    return llm


def refuse_non_finite(folder: Path | str, name: str, tensor: torch.Tensor) -> None:
    """Refuse NaN and infinity. Both show in the minimum or maximum, which is much cheaper than testing each element.

    Raises:
        ModelError: `tensor` contains NaN or infinity.
    """
    if not tensor.is_floating_point() or not tensor.numel():
        return
    extremes = torch.aminmax(tensor.float() if tensor.element_size() == 1 else tensor)  # float8 has no kernel for it
    if extremes.min.isfinite() and extremes.max.isfinite():
        return
    count = int((~tensor.isfinite()).sum())
    if count:
        raise ModelError(f'{folder}: {name} contains {count} NaN or infinite values; the weights are damaged')


def _float_values(parameter: torch.nn.Parameter) -> torch.Tensor:
    """Return the floating-point values of a weight. For a packed 4-bit weight these are its block scales.

    A NaN in a block makes the scale of the block NaN. Double quantization also quantizes the scales; their mean
    (`offset`) stays in floating point and becomes NaN if any scale is.
    """
    state = getattr(parameter, 'quant_state', None)
    if state is None:
        return parameter.detach()
    return state.offset.reshape(1) if state.nested else state.absmax


def _verify_names_and_shapes(name: str, llm: PreTrainedModel, info: dict[str, Any]) -> None:
    for key, shape, expected in sorted(info['mismatched_keys']):
        raise ModelError(
            f'{name}: {key} has the shape {list(shape)}, config.json requires {list(expected)}; the weights and '
            'config.json do not belong to the same model'
        )
    missing = sorted(info['missing_keys'])
    if missing:
        hint = ', and its config.json does not tie it to the embedding' if missing == ['lm_head.weight'] else ''
        raise ModelError(f'the weights of {name} lack {listed(missing)}{hint}; they are incomplete, copy them again')
    # Modules outside the language model, such as an image encoder, have another top-level prefix.
    prefixes = {key.split('.')[0] for key, _ in llm.named_parameters()}
    unexpected = sorted(
        key for key in info['unexpected_keys'] if key.split('.')[0] in prefixes and not key.endswith(_COMPUTED)
    )
    if unexpected:
        raise ModelError(
            f'the weights of {name} contain {listed(unexpected)}, which the model of its config.json does not have '
            f'(num_hidden_layers is {getattr(llm.config, "num_hidden_layers", None)}); the weights and config.json do '
            'not belong to the same model'
        )
