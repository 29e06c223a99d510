"""Checks of a run against config.json, before any weight is read: attention implementation and context length."""

from typing import Any

from transformers import PreTrainedConfig

from ...compat.transformers_private import supports_sdpa
from ...errors import ModelError
from .model_class import model_class


def takes_sdpa(config: PreTrainedConfig) -> bool:
    """Return whether the model class of `config` supports SDPA; True for a class that transformers does not know."""
    return supports_sdpa(_known_class(config))


def check_attention(config: PreTrainedConfig, implementation: str | None) -> None:
    """Refuse `llm.attn_implementation` if the model of `config` does not support it; None is the model's default.

    Raises:
        ModelError: It is 'sdpa', and the model does not support it.
    """
    if implementation != 'sdpa' or takes_sdpa(config):
        return
    cap, name = getattr(config, 'attn_logit_softcapping', None), _known_class(config).__name__
    why = f'{name} does not support it' if cap is None else f'{name} caps its attention logits at {cap:g}'
    raise ModelError(f"llm.attn_implementation='sdpa', but {why}: set llm.attn_implementation='eager'")


def length_warning(config: PreTrainedConfig, max_length: int) -> str | None:
    """Return a warning if `max_length` (tokens) exceeds the context length of the model of `config`, else None."""
    limit = context_length(config)
    if limit is None or max_length <= limit:
        return None
    text = (
        f"max_length={max_length} exceeds the model's context length of {limit} tokens (max_position_embeddings); "
        f'training on longer samples works badly or not at all: set max_length={limit}'
    )
    rope = getattr(config.get_text_config(), 'rope_parameters', None) or {}
    # No hint for other position embeddings, RoPE per layer type, RoPE that is already scaled or in text_config.
    is_plain_rope = 'rope_theta' in rope and rope.get('rope_type', 'default') == 'default'
    if not is_plain_rope or config.get_text_config() is not config:
        return text
    scaled = {**rope, 'rope_type': 'linear', 'factor': float(-(-max_length // limit))}  # replaces all of the model's
    values = ' '.join(f'llm.rope_parameters.{name}={value}' for name, value in scaled.items())
    return f'{text}, or scale RoPE, for example with {values}'


def context_length(config: PreTrainedConfig) -> int | None:
    """Return the model's context length in tokens, including RoPE scaling; None if it has no limit."""
    config = config.get_text_config()
    limit = getattr(config, 'max_position_embeddings', None)
    if not isinstance(limit, int) or 'alibi' in config.model_type:
        return None
    rope = getattr(config, 'rope_parameters', None) or {}
    of_layer_types = [rope, *(values for values in rope.values() if isinstance(values, dict))]
    return max(limit, *(_scaled_length(values, limit) for values in of_layer_types))


def stored_quantization(config: PreTrainedConfig) -> dict[str, Any] | None:
    """Return the quantization config of a pre-quantized model as a dict; None if it is not quantized."""
    for part in (config, config.get_text_config()):  # multimodal models may have it in text_config
        stored = getattr(part, 'quantization_config', None)
        if stored:
            return dict(stored) if isinstance(stored, dict) else stored.to_dict()
    return None


def describe_stored_quantization(config: PreTrainedConfig) -> str | None:
    """Return method and bits of a pre-quantized model as text; None if it is not quantized."""
    values = stored_quantization(config)
    if values is None:
        return None
    method = values.get('quant_method')
    bits = 4 if values.get('load_in_4bit') else 8 if values.get('load_in_8bit') else values.get('bits')
    return f'stored in {getattr(method, "value", method)}' + (f' ({bits} bits)' if bits else '')


def _scaled_length(rope: dict[str, Any], limit: int) -> int:
    """Return the context length, in tokens, of one set of RoPE parameters; some configs store it already scaled."""
    factor = rope.get('factor')
    unscaled = rope.get('original_max_position_embeddings') or limit
    return int(factor * unscaled) if isinstance(factor, (int, float)) else limit


def _known_class(config: PreTrainedConfig) -> type | None:
    try:
        return model_class(config)
    except ModelError:  # remote code may define it
        return None
