"""Refuse keys of the sections `llm` and `tokenizer` that would have no effect.

from_pretrained accepts any keyword. It ignores some, xtune sets others itself, and all remaining ones must be
attributes of the model's config or of the tokenizer.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, RopeParameters
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..errors import ConfigError, did_you_mean

_PRECISION = "set precision='bf16' or 'fp32'"
_DEVICES = 'each process has one device; to use several, set strategy, such as --strategy fsdp2'
_QUANTIZE = 'set the section quantization, as a qlora or int8_lora preset does'
_IGNORED = 'transformers 5 ignores it: leave it out'
_SET_BY_XTUNE = 'xtune sets it: leave it out'
_ATTENTION = "set llm.attn_implementation='flash_attention_2'"

# Arguments that xtune passes to every loader.
_PASSED_BY_XTUNE = {'dtype': _PRECISION, 'device_map': _DEVICES}
# Current and former arguments of from_pretrained without effect here -> what to do instead.
_INSTEAD = {
    **_PASSED_BY_XTUNE,
    'torch_dtype': _PRECISION,
    **dict.fromkeys(
        ('device', 'max_memory', 'offload_folder', 'offload_buffers', 'offload_state_dict', 'tp_plan', 'tp_size'),
        _DEVICES,
    ),
    **dict.fromkeys(('device_mesh', 'distributed_config', 'fsdp_plan', 'fusion_config'), _DEVICES),
    **dict.fromkeys(('quantization_config', 'load_in_4bit', 'load_in_8bit'), _QUANTIZE),
    **dict.fromkeys(('low_cpu_mem_usage', '_fast_init', 'from_tf', 'from_flax', 'mirror', 'resume_download'), _IGNORED),
    **dict.fromkeys(
        ('output_loading_info', 'ignore_mismatched_sizes', 'tqdm_class', 'return_unused_kwargs'), _SET_BY_XTUNE
    ),
    **dict.fromkeys(('use_flash_attention_2', 'use_flash_attn', 'flash_attn'), _ATTENTION),
    'use_auth_token': 'set llm.token',
    'pretrained_model_name_or_path': 'set base_model',
    'state_dict': 'the weights are those of base_model',
    'config': 'the config is that of base_model; set single values of it, such as llm.attention_dropout=0.1',
    'use_cache': 'training uses no KV cache, and generation always does: leave it out',
    'return_dict': _SET_BY_XTUNE,
    'rope_theta': 'set llm.rope_parameters.rope_theta',
    'rope_scaling': 'set llm.rope_parameters, such as llm.rope_parameters.rope_type=linear '
    'llm.rope_parameters.factor=2.0 llm.rope_parameters.rope_theta=BASE, with BASE from config.json',
}
# Keywords of from_pretrained that are not in its signature and have an effect.
_MODEL_KEYWORDS = (
    'proxies subfolder variant code_revision trust_remote_code attn_implementation experts_implementation '
    'use_safetensors weights_only disable_mmap key_mapping use_kernels kernel_config allow_all_kernels '
    'adapter_kwargs adapter_name generation_config gguf_file'
).split()
_TOKENIZER_KEYWORDS = (
    'proxies subfolder code_revision trust_remote_code use_fast tokenizer_type gguf_file padding_side truncation_side '
    'model_max_length add_prefix_space add_bos_token add_eos_token split_special_tokens clean_up_tokenization_spaces '
    'additional_special_tokens extra_special_tokens model_specific_special_tokens chat_template vocab_file merges_file '
    'tokenizer_file added_tokens_decoder fix_mistral_regex'
).split()
# RoPE types that require a scaling factor.
_SCALED_ROPE = ('linear', 'dynamic', 'yarn', 'llama3')


def check_reserved_keys(loader: Callable, section: dict[str, Any]) -> None:
    """Refuse keys of section `llm` that `loader` ignores or that xtune passes itself.

    Raises:
        ConfigError: There are such keys. The message lists them all and names the option to use instead.
    """
    reserved = _INSTEAD if getattr(loader, '__name__', '') == 'from_pretrained' else _PASSED_BY_XTUNE
    _refuse([f'llm.{key}={section[key]!r} has no effect: {reserved[key]}' for key in section if key in reserved])


def check_llm_keys(section: dict[str, Any], config: PreTrainedConfig) -> None:
    """Refuse keys of section `llm` that are neither arguments of from_pretrained nor attributes of `config`.

    Args:
        section: The section's keys and values.
        config: The config of the base model, as read from its folder.

    Raises:
        ConfigError: There are such keys, or the RoPE or attention type is unknown.
    """
    arguments = {*_arguments(PreTrainedModel.from_pretrained), *_MODEL_KEYWORDS}
    attributes = {name for name in config.to_dict() if not name.startswith('_')} | set(config.attribute_map)
    is_remote_code = not type(config).__module__.startswith(('transformers.', 'xtune.'))  # it may accept any key
    problems = []
    for key in section:
        # refuse_text_settings decides whether a value of text_config may be set.
        if key in arguments or is_remote_code or _has(config, key) or _has(config.get_text_config(), key):
            continue
        close = did_you_mean(key, (arguments | attributes) - set(_INSTEAD))
        name = type(config).__name__
        problems.append(f'llm.{key} is no argument of from_pretrained and no attribute of {name}{close}')
    problems += _attention_problems(section.get('attn_implementation'))
    if 'rope_parameters' in section:
        problems += _rope_problems(section['rope_parameters'], getattr(config, 'rope_parameters', None) or {})
    _refuse(problems)


def check_tokenizer_keys(section: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse keys of section `tokenizer` that had no effect on `tokenizer`, which was loaded with them.

    Raises:
        ConfigError: There are such keys.
    """
    cls = type(tokenizer)
    if not cls.__module__.startswith('transformers.'):  # remote code may store them anywhere
        return
    known = {*_arguments(PreTrainedTokenizerBase.from_pretrained), *_TOKENIZER_KEYWORDS, *cls.SPECIAL_TOKENS_ATTRIBUTES}
    for parent in cls.__mro__:
        known |= set(_arguments(parent.__init__))
    unknown = [key for key in section if key not in known and not hasattr(tokenizer, key)]
    _refuse([f'tokenizer.{key} is no argument of {cls.__name__}{did_you_mean(key, known)}' for key in unknown])


def _has(config: PreTrainedConfig, key: str) -> bool:
    return not key.startswith('_') and hasattr(config, key) and not callable(getattr(config, key))


def _arguments(function: Callable) -> Iterator[str]:
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and name != 'self':
            yield name


def _attention_problems(implementation: Any) -> Iterator[str]:
    """Yield an error if transformers does not know the attention implementation; a name with `/` is a hub kernel."""
    known = {'eager', *ALL_ATTENTION_FUNCTIONS.valid_keys()}
    if isinstance(implementation, str) and '/' not in implementation:
        if implementation.removeprefix('paged|') not in known:
            close = did_you_mean(implementation, known)
            yield f'llm.attn_implementation={implementation!r} is no attention of transformers{close}'


def _rope_problems(wanted: Any, current: dict[str, Any]) -> Iterator[str]:
    """Yield errors in the RoPE parameters `wanted`, which replace the model's `current` ones."""
    if not isinstance(wanted, dict):
        yield f'llm.rope_parameters is a dict such as dict(rope_type=..., factor=...), got {wanted!r}'
        return
    by_layer_type = {name: values for name, values in current.items() if isinstance(values, dict)}
    if by_layer_type:
        for name in wanted:
            if name not in by_layer_type:
                yield f'llm.rope_parameters.{name}: this model has parameters for {", ".join(by_layer_type)}'
            else:
                yield from _flat_rope_problems(f'llm.rope_parameters.{name}', wanted[name], by_layer_type[name])
    else:
        yield from _flat_rope_problems('llm.rope_parameters', wanted, current)


def _flat_rope_problems(option: str, wanted: Any, current: dict[str, Any]) -> Iterator[str]:
    """Yield errors in one set of RoPE parameters; `option` is its name in the config."""
    if not isinstance(wanted, dict):
        yield f'{option} is a dict such as dict(rope_type=..., factor=...), got {wanted!r}'
        return
    known, rope_types = {*RopeParameters.__annotations__, 'type', *current}, {'default', *ROPE_INIT_FUNCTIONS}
    for key in wanted:
        if key not in known:
            yield f'{option}.{key} is no parameter of RoPE{did_you_mean(key, known)}'
    rope_type = wanted.get('rope_type', wanted.get('type', 'default'))
    if not isinstance(rope_type, str) or rope_type not in rope_types:
        close = did_you_mean(rope_type, rope_types)
        yield f'{option}.rope_type={rope_type!r} is unknown; known types are {", ".join(sorted(rope_types))}{close}'
    elif rope_type in _SCALED_ROPE and not isinstance(wanted.get('factor'), (int, float)):
        yield f'{option} with rope_type={rope_type} needs factor, a number, got {wanted.get("factor")!r}'
    if 'rope_theta' in current and 'rope_theta' not in wanted:
        yield f"{option} has no rope_theta, and replaces the model's own: add rope_theta={current['rope_theta']!r}"


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ConfigError('; '.join(problems))
