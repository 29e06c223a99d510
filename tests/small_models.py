"""Small random models of every causal LM class of the installed transformers.

    config = small_config('GraniteMoeHybridForCausalLM')
    model = small_model('GraniteMoeHybridForCausalLM')     # on the CPU, float32, sharp random weights

A config is the default one of its class with small sizes and one layer of each kind that it has, see
xtune/models/small_copy.py. Classes that need more have a row in `ODD`. Classes that cannot be built small, or are no
language models on their own, stand in `LEFT_OUT` with the reason.
"""

import warnings
from typing import Any

import torch
import transformers
from small_tables import LEFT_OUT, ODD
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from xtune.models import small_copy


def small_classes() -> list[str]:
    """Return the names of the classes that can be built small, sorted."""
    return sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()) - set(LEFT_OUT))


def small_config(model_class: str, vocabulary: int = small_copy.VOCABULARY, **changes: Any) -> PreTrainedConfig | None:
    """Return a small config for the class of that name; None: it stands in `LEFT_OUT`.

    Args:
        model_class: A value of MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.
        vocabulary: Token ids.
        changes: Values that replace those chosen here, such as `tie_word_embeddings`.
    """
    if model_class in LEFT_OUT:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return small_copy.small_config(_config_class(model_class)(), vocabulary, **ODD.get(model_class, {}) | changes)


def small_model(model_class: str, seed: int = 0, std: float = small_copy.INIT_STD, **changes: Any) -> PreTrainedModel:
    """Return a small random model on the CPU in float32, in evaluation mode.

    Args:
        model_class: See `small_config`.
        seed: Of its weights.
        std: Standard deviation of its matrices and experts.
        changes: See `small_config`.
    """
    config = small_config(model_class, **changes)
    torch.manual_seed(seed)
    return small_copy.randomize_weights(getattr(transformers, model_class)(config).float(), std)


def _config_class(model_class: str) -> type[PreTrainedConfig]:
    kind = getattr(transformers, model_class).config_class
    if kind is not None:
        return kind
    types = [name for name, known in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items() if known == model_class]
    return CONFIG_MAPPING[types[0]]
