"""What config.json tells of a run before a weight is read: attention that the model lacks, rows it is not made for."""

from typing import Any

from transformers import PreTrainedConfig

from ...compat.transformers_private import supports_sdpa
from ...errors import ModelError
from .model_class import model_class


def takes_sdpa(config: PreTrainedConfig) -> bool:
    """Tell whether the model of `config` attends by torch's kernels; one that transformers does not know may."""
    return supports_sdpa(_kind(config))


def check_attention(config: PreTrainedConfig, wanted: str | None) -> None:
    """Refuse the attention `wanted` of section `llm` if the model of `config` cannot do it; None means what it can.

    Raises:
        ModelError: It cannot.
    """
    if wanted != 'sdpa' or takes_sdpa(config):
        return
    cap, name = getattr(config, 'attn_logit_softcapping', None), _kind(config).__name__
    why = f'{name} has no such attention' if cap is None else f'{name} caps the logits of its attention at {cap:g}'
    raise ModelError(f"llm.attn_implementation='sdpa', but {why}: set llm.attn_implementation='eager'")


def length_warning(config: PreTrainedConfig, max_length: int) -> str | None:
    """Return what to do about rows of `max_length` tokens that the model of `config` is not made for; None: it is."""
    limit = made_for(config)
    if limit is None or max_length <= limit:
        return None
    text = (
        f'max_length={max_length}, but the model is made for {limit} tokens (max_position_embeddings); longer samples '
        f'train badly or not at all: set max_length={limit}'
    )
    rope = getattr(config.get_text_config(), 'rope_parameters', None) or {}
    # Positions of another kind, another RoPE for each kind of layer, one that is scaled already, or one in text_config
    ordinary = 'rope_theta' in rope and rope.get('rope_type', 'default') == 'default'
    if not ordinary or config.get_text_config() is not config:
        return text
    scaled = {**rope, 'rope_type': 'linear', 'factor': float(-(-max_length // limit))}  # it replaces the model's own
    values = ' '.join(f'llm.rope_parameters.{name}={value}' for name, value in scaled.items())
    return f'{text}, or scale positions, such as by {values}'


def made_for(config: PreTrainedConfig) -> int | None:
    """Return the tokens of the longest row that a model is made for, as its RoPE is scaled; None: it has no limit."""
    config = config.get_text_config()
    limit = getattr(config, 'max_position_embeddings', None)
    if not isinstance(limit, int) or 'alibi' in config.model_type:
        return None
    rope = getattr(config, 'rope_parameters', None) or {}
    kinds = [rope, *(values for values in rope.values() if isinstance(values, dict))]
    return max(limit, *(_scaled(values, limit) for values in kinds))


def stored_settings(config: PreTrainedConfig) -> dict[str, Any] | None:
    """Return the settings that the weights of a model were quantised with, from its config; None: they are not."""
    for part in (config, config.get_text_config()):  # models of text and images may say so of the text alone
        stored = getattr(part, 'quantization_config', None)
        if stored:
            return dict(stored) if isinstance(stored, dict) else stored.to_dict()
    return None


def stored_form(config: PreTrainedConfig) -> str | None:
    """Return in which form the weights of a model are stored, from the config as it was loaded; None: not quantised."""
    values = stored_settings(config)
    if values is None:
        return None
    method = values.get('quant_method')
    bits = 4 if values.get('load_in_4bit') else 8 if values.get('load_in_8bit') else values.get('bits')
    return f'stored in {getattr(method, "value", method)}' + (f' ({bits} bits)' if bits else '')


def _scaled(rope: dict[str, Any], limit: int) -> int:
    """Return how far positions reach by one set of RoPE's parameters; some configs have the scaled limit already."""
    factor = rope.get('factor')
    before = rope.get('original_max_position_embeddings') or limit
    return int(factor * before) if isinstance(factor, (int, float)) else limit


def _kind(config: PreTrainedConfig) -> type | None:
    try:
        return model_class(config)
    except ModelError:  # code beside the checkpoint may know it
        return None
