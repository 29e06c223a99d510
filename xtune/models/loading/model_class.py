"""Choose the transformers class that loads a checkpoint from its config.json.

Multimodal checkpoints have separate classes, such as Qwen2_5_VLForConditionalGeneration, which include the vision
tower. AutoModelForCausalLM does not know most of these classes. For some (Llama 4, Qwen3.5) it loads only the language
model, and an export would lose all other weights.
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

# Arguments of from_pretrained that locate config.json.
LOCATION_ARGUMENTS = ('revision', 'token', 'cache_dir', 'local_files_only', 'subfolder')


def auto_class(config: PreTrainedConfig, trust_remote_code: bool = False) -> type:
    """Return the auto class of transformers whose `from_pretrained` loads all weights of a checkpoint.

    Args:
        config: The config of the checkpoint.
        trust_remote_code: Whether the checkpoint's code may run.

    Raises:
        ModelError: transformers has no causal language model of this type.
    """
    if trust_remote_code and 'AutoModelForCausalLM' in (getattr(config, 'auto_map', None) or ()):
        return AutoModelForCausalLM
    return AutoModelForMultimodalLM if _is_multimodal(config, model_class(config)) else AutoModelForCausalLM


def model_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """Return the model class of a config: the multimodal one if there are both, unless `architectures` names the other.

    Raises:
        ModelError: transformers has no causal language model of this type.
    """
    causal = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    multimodal = MODEL_FOR_MULTIMODAL_LM_MAPPING.get(type(config), None)
    architectures = getattr(config, 'architectures', None) or ()
    # Both may share a config class; `architectures` names the class that saved the checkpoint.
    is_causal = multimodal is None or (causal is not None and causal.__name__ in architectures)
    cls = causal if is_causal else multimodal
    if cls is None or (cls is multimodal and getattr(config, 'is_encoder_decoder', False)):
        raise ModelError(
            f'a model of type `{config.model_type}` cannot be used: transformers has no causal language model class '
            'for it; use a language model, or a vision-language model such as Qwen2.5-VL'
        )
    if cls.forward is torch.nn.Module.forward:
        thinker = f'{config.model_type}_thinker'
        hint = f'; save its `{thinker}` as a separate model' if thinker in CONFIG_MAPPING else ''
        raise ModelError(
            f'a model of type `{config.model_type}` cannot be used: {cls.__name__} combines several models and has no '
            f'forward pass of its own{hint}'
        )
    return cls


def loader(name: str, *, trust_remote_code: bool = False, **arguments: Any) -> partial:
    """Return the `from_pretrained` of the checkpoint `name` as a partial with its name and `arguments`.

    Raises:
        ModelError: transformers has no causal language model of its type, or `arguments` contain settings that only
            its text_config has.
        OSError, ValueError: config.json cannot be found or read.
    """
    location = {key: value for key, value in arguments.items() if key in LOCATION_ARGUMENTS}
    config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code, **location)
    refuse_text_settings(config, arguments)
    cls = auto_class(config, trust_remote_code)
    return partial(cls.from_pretrained, name, trust_remote_code=trust_remote_code, **arguments)


def refuse_text_settings(config: PreTrainedConfig, section: dict[str, Any]) -> None:
    """Refuse keys of section `llm` that only the `text_config` of a config has: from_pretrained does not set them.

    Raises:
        ModelError: There are such keys.
    """
    text = config.get_text_config()
    unset = sorted(key for key in section if text is not config and hasattr(text, key) and not hasattr(config, key))
    if unset:
        raise ModelError(
            f'llm.{unset[0]} is a setting of the text_config of a `{config.model_type}` model, which section `llm` '
            'cannot change: change it in `text_config` of config.json in a copy of the model folder'
        )


def _is_multimodal(config: PreTrainedConfig, cls: type[PreTrainedModel]) -> bool:
    """Return whether `cls` is not the class that AutoModelForCausalLM chooses for `config`."""
    return MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None) is not cls
