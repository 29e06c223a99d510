"""Small random models of every causal LM class of the installed transformers.

    config = small_config('GraniteMoeHybridForCausalLM')
    model = small_model('GraniteMoeHybridForCausalLM')     # on the CPU, float32, sharp random weights

A config gets small sizes by the names of its fields, and one layer of each kind that the default config has. Classes
that need more have a row in `ODD`. Classes that cannot be built small, or are no language models on their own, stand in
`LEFT_OUT` with the reason.
"""

import copy
import warnings
from typing import Any

import torch
import transformers
from small_tables import LEFT_OUT, ODD, PER_LAYER, SIZES
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY = 96


def small_classes() -> list[str]:
    """Return the names of the classes that can be built small, sorted."""
    return sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()) - set(LEFT_OUT))


def small_config(model_class: str, vocabulary: int = VOCABULARY, **changes: Any) -> PreTrainedConfig | None:
    """Return a small config for the class of that name; None: it stands in `LEFT_OUT`.

    Args:
        model_class: A value of MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.
        vocabulary: Token ids.
        changes: Values that replace those chosen here, such as `tie_word_embeddings`.
    """
    if model_class in LEFT_OUT:
        return None
    kind = _config_class(model_class)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return _shrunk(kind, vocabulary, ODD.get(model_class, {}) | changes)


def small_model(model_class: str, seed: int = 0, spread: float = 0.3, **changes: Any) -> PreTrainedModel:
    """Return a small random model on the CPU in float32, in evaluation mode.

    Args:
        model_class: See `small_config`.
        seed: Of its weights.
        spread: Standard deviation of its matrices and experts; with the usual 0.02, layers hardly change what they get.
        changes: See `small_config`.
    """
    config = small_config(model_class, **changes)
    torch.manual_seed(seed)
    model = getattr(transformers, model_class)(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and not name.endswith('A_log'):
                parameter.normal_(std=spread)
    return model


def _config_class(model_class: str) -> type[PreTrainedConfig]:
    kind = getattr(transformers, model_class).config_class
    if kind is not None:
        return kind
    types = [name for name, known in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items() if known == model_class]
    return CONFIG_MAPPING[types[0]]


def _shrunk(kind: type[PreTrainedConfig], vocabulary: int, changes: dict[str, Any]) -> PreTrainedConfig:
    default = kind()
    values = {name: value for name, value in SIZES.items() if name in _fields(default)}
    for name in ('vocab_size', 'vocab_size_per_layer_input', 'unpadded_vocab_size', 'decoder_vocab_size'):
        if name in _fields(default):
            values[name] = vocabulary
    for name in _fields(default):
        if name.endswith('_token_id') or name.endswith('_token_index'):
            values[name] = None if getattr(default, name) is None else min(2, vocabulary - 1)
    if 'kv_lora_rank' in _fields(default) and 'num_key_value_heads' in values:
        values['num_key_value_heads'] = values['num_attention_heads']
    if getattr(default, 'is_decoder', True) is False:
        values['is_decoder'] = True
    values |= _one_of_each(default)
    for name, sub in (getattr(kind, 'sub_configs', None) or {}).items():
        if name in ('text_config', 'decoder'):
            inner = type(getattr(default, name)) if getattr(default, name, None) is not None else sub
            values[name] = _shrunk(inner, vocabulary, changes.get(name, {})).to_dict()
    values |= {name: value for name, value in changes.items() if not isinstance(value, dict) or name not in values}
    return kind(**copy.deepcopy(values))


def _fields(config: PreTrainedConfig) -> set[str]:
    return {name for name in vars(config) if not name.startswith('_')} | set(getattr(config, 'attribute_map', {}))


def _one_of_each(default: PreTrainedConfig) -> dict[str, Any]:
    """Return the number of layers and the lists with an entry for each layer: every combination of them once."""
    lists = [name for name in PER_LAYER if name in vars(default) and getattr(default, name)]
    if not lists:
        return {}
    rows = list(dict.fromkeys(zip(*(getattr(default, name) for name in lists), strict=False)))
    rows = rows if len(rows) > 1 else rows * 2
    values: dict[str, Any] = {name: list(column) for name, column in zip(lists, zip(*rows, strict=True), strict=True)}
    return values | {name: len(rows) for name in ('num_hidden_layers', 'num_layers') if name in _fields(default)}
