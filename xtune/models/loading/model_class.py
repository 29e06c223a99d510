"""Which class of transformers loads a checkpoint: it follows from config.json.

Checkpoints that also take images or sound have a class of their own, such as Qwen2_5_VLForConditionalGeneration, which
holds the vision tower too. AutoModelForCausalLM does not know most of these classes. For some (Llama 4, Qwen3.5) it
loads the language model alone, and an export would lose all other weights.
"""

from functools import partial
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING

from ...errors import ModelError

# Arguments of from_pretrained that say where config.json is.
FINDING = ('revision', 'token', 'cache_dir', 'local_files_only', 'subfolder')


def auto_class(config: PreTrainedConfig, own_code: bool = False) -> type:
    """Return the class of transformers whose `from_pretrained` loads all weights of a checkpoint.

    Args:
        config: What config.json of the checkpoint holds.
        own_code: Whether code that lies beside the checkpoint may run.

    Raises:
        ModelError: transformers has no model of this type that continues text.
    """
    if own_code and 'AutoModelForCausalLM' in (getattr(config, 'auto_map', None) or ()):
        return AutoModelForCausalLM
    return AutoModelForMultimodalLM if _takes_more_than_text(config, model_class(config)) else AutoModelForCausalLM


def model_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """Return the model class of a config.

    Raises:
        ModelError: transformers has no model of this type that continues text.
    """
    text = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    whole = MODEL_FOR_MULTIMODAL_LM_MAPPING.get(type(config), None)
    named = getattr(config, 'architectures', None) or ()
    # One config class may serve both; the checkpoint says which class wrote it.
    kind = text if whole is None or (text is not None and text.__name__ in named) else whole
    if kind is None or (kind is whole and getattr(config, 'is_encoder_decoder', False)):
        raise ModelError(
            f'a model of type `{config.model_type}` cannot be used: transformers has no class for it that continues '
            'text token by token; take a language model, or one of language and vision such as Qwen2.5-VL'
        )
    if kind.forward is torch.nn.Module.forward:
        thinker = f'{config.model_type}_thinker'
        hint = f'; save its part `{thinker}` as a model of its own' if thinker in CONFIG_MAPPING else ''
        raise ModelError(
            f'a model of type `{config.model_type}` cannot be used: {kind.__name__} joins several models and has no '
            f'forward pass of its own{hint}'
        )
    return kind


def loader(name: str, *, trust_remote_code: bool = False, **given: Any) -> partial:
    """Return the `from_pretrained` that loads the checkpoint `name`, with its name and the arguments `given` in place.

    Raises:
        ModelError: transformers has no model of its type that continues text, or `given` are settings of a part of it.
        OSError, ValueError: config.json cannot be found or read.
    """
    found = {key: value for key, value in given.items() if key in FINDING}
    config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code, **found)
    refuse_text_settings(config, given)
    kind = auto_class(config, trust_remote_code)
    return partial(kind.from_pretrained, name, trust_remote_code=trust_remote_code, **given)


def refuse_text_settings(config: PreTrainedConfig, given: dict[str, Any]) -> None:
    """Refuse arguments of section `llm` that only the `text_config` of a config has: they would not reach it.

    Raises:
        ModelError: There are some.
    """
    text = config.get_text_config()
    lost = sorted(key for key in given if text is not config and hasattr(text, key) and not hasattr(config, key))
    if lost:
        raise ModelError(
            f'llm.{lost[0]} is a setting of the text part of a `{config.model_type}` model, which cannot be changed '
            'from section `llm`: change it in `text_config` of config.json in a copy of the model folder'
        )


def _takes_more_than_text(config: PreTrainedConfig, kind: type[PreTrainedModel]) -> bool:
    """Tell whether `kind` is not what AutoModelForCausalLM makes of `config`."""
    return MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None) is not kind
