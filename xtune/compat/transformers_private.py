"""Private names of transformers."""

from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

# Where a config keeps the name of its model's attention.
ATTENTION_FIELD = '_attn_implementation'


def attention_of(config: PreTrainedConfig) -> str | None:
    """Return the name of the attention that a model of `config` computes with; the public API can only set it."""
    return getattr(config, ATTENTION_FIELD)


def set_attention_of(config: PreTrainedConfig, name: str) -> None:
    """Set that name before the model exists; the public `set_attn_implementation` needs a model."""
    setattr(config, ATTENTION_FIELD, name)


def supports_sdpa(model_class: type | None) -> bool:
    """Return whether `model_class` attends through scaled_dot_product_attention; True where it does not say.

    The public API answers by an exception of the finished model only.
    """
    return getattr(model_class, '_supports_sdpa', True)


def from_config(model_class: type[PreTrainedModel], config: PreTrainedConfig, **settings: Any) -> PreTrainedModel:
    """Return a model with weights that are not loaded; `settings` are `dtype` and `attn_implementation`.

    The public `AutoModel.from_config` chooses the class by the config, and does not take one of a remote-code
    checkpoint.
    """
    return model_class._from_config(config, **settings)


def kept_in_float32(model: torch.nn.Module, dtype: torch.dtype) -> set[str]:
    """Return parts of the names of weights that transformers stores in float32 in a model of `dtype`.

    Only the loader's private lists have them.
    """
    names = set(getattr(model, '_keep_in_fp32_modules_strict', None) or ())
    return names | set(getattr(model, '_keep_in_fp32_modules', None) or ()) if dtype == torch.float16 else names
