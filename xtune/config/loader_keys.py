"""Refuse keys of the sections `llm` and `tokenizer` that would have no effect.

from_pretrained accepts any keyword argument. It ignores some, xtune sets others, and all others must be attributes of
the model's config or of the tokenizer.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, RopeParameters
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..errors import ConfigError, did_you_mean

_PRECISION = "set precision='bf16' or 'fp32'"
_DEVICES = 'each rank has one device; to use several, set strategy, such as --strategy fsdp2'
_QUANTISE = 'set the section quantization, as a qlora or int8_lora preset does'
_GONE = 'transformers 5 ignores it: leave it out'
_OWN = 'xtune sets it: leave it out'
_ATTENTION = "set llm.attn_implementation='flash_attention_2'"

# Arguments that xtune passes to each loader.
_PASSED = {'dtype': _PRECISION, 'device_map': _DEVICES}
# Arguments and former arguments of from_pretrained without effect here, and what to do instead.
_INSTEAD = {
    **_PASSED,
    'torch_dtype': _PRECISION,
    **dict.fromkeys(
        ('device', 'max_memory', 'offload_folder', 'offload_buffers', 'offload_state_dict', 'tp_plan', 'tp_size'),
        _DEVICES,
    ),
    **dict.fromkeys(('device_mesh', 'distributed_config', 'fsdp_plan', 'fusion_config'), _DEVICES),
    **dict.fromkeys(('quantization_config', 'load_in_4bit', 'load_in_8bit'), _QUANTISE),
    **dict.fromkeys(('low_cpu_mem_usage', '_fast_init', 'from_tf', 'from_flax', 'mirror', 'resume_download'), _GONE),
    **dict.fromkeys(('output_loading_info', 'ignore_mismatched_sizes', 'tqdm_class', 'return_unused_kwargs'), _OWN),
    **dict.fromkeys(('use_flash_attention_2', 'use_flash_attn', 'flash_attn'), _ATTENTION),
    'use_auth_token': 'set llm.token',
    'pretrained_model_name_or_path': 'set base_model',
    'state_dict': 'the weights are those of base_model',
    'config': 'the config is that of base_model; set single values of it, such as llm.attention_dropout=0.1',
    'use_cache': 'training uses no KV cache, and generation always does: leave it out',
    'return_dict': _OWN,
    'rope_theta': 'set llm.rope_parameters.rope_theta',
    'rope_scaling': 'set llm.rope_parameters, such as llm.rope_parameters.rope_type=linear '
    'llm.rope_parameters.factor=2.0 llm.rope_parameters.rope_theta=BASE, with BASE from config.json',
}
# Arguments of from_pretrained that are not in its signature.
_HONOURED = (
    'proxies subfolder variant code_revision trust_remote_code attn_implementation experts_implementation '
    'use_safetensors weights_only disable_mmap key_mapping use_kernels kernel_config allow_all_kernels '
    'adapter_kwargs adapter_name generation_config gguf_file'
).split()
_OF_TOKENIZERS = (
    'proxies subfolder code_revision trust_remote_code use_fast tokenizer_type gguf_file padding_side truncation_side '
    'model_max_length add_prefix_space add_bos_token add_eos_token split_special_tokens clean_up_tokenization_spaces '
    'additional_special_tokens extra_special_tokens model_specific_special_tokens chat_template vocab_file merges_file '
    'tokenizer_file added_tokens_decoder fix_mistral_regex'
).split()
# RoPE types that scale positions by a factor.
_SCALED = ('linear', 'dynamic', 'yarn', 'llama3')


def check_taken(loader: Callable, given: dict[str, Any]) -> None:
    """Refuse keys of section `llm` that `loader` would ignore, or that xtune passes itself.

    Raises:
        ConfigError: There are such keys. The message lists them all, with the option to use instead.
    """
    taken = _INSTEAD if getattr(loader, '__name__', '') == 'from_pretrained' else _PASSED
    _refuse([f'llm.{key}={given[key]!r} has no effect: {taken[key]}' for key in given if key in taken])


def check_llm_keys(given: dict[str, Any], config: PreTrainedConfig) -> None:
    """Refuse keys of section `llm` that are neither arguments of from_pretrained nor attributes of `config`.

    Args:
        given: The section's keys and values.
        config: The config of the base model, as it was read.

    Raises:
        ConfigError: There are such keys, or the RoPE type or attention implementation is unknown.
    """
    arguments = {*_arguments(PreTrainedModel.from_pretrained), *_HONOURED}
    attributes = {name for name in config.to_dict() if not name.startswith('_')} | set(config.attribute_map)
    of_model = not type(config).__module__.startswith(('transformers.', 'xtune.'))  # its own code may take any key
    problems = []
    for key in given:
        # Whether a value may be changed in the text part of a config is decided where the class is chosen.
        if key in arguments or of_model or _has(config, key) or _has(config.get_text_config(), key):
            continue
        close = did_you_mean(key, (arguments | attributes) - set(_INSTEAD))
        kind = type(config).__name__
        problems.append(f'llm.{key} is not an argument of from_pretrained or an attribute of {kind}{close}')
    problems += _attention_problems(given.get('attn_implementation'))
    if 'rope_parameters' in given:
        problems += _rope_problems(given['rope_parameters'], getattr(config, 'rope_parameters', None) or {})
    _refuse(problems)


def check_tokenizer_keys(given: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse keys of section `tokenizer` that had no effect on `tokenizer`, which was loaded with them.

    Raises:
        ConfigError: There are such keys.
    """
    kind = type(tokenizer)
    if not kind.__module__.startswith('transformers.'):  # the model's own code may keep them anywhere
        return
    known = {*_arguments(PreTrainedTokenizerBase.from_pretrained), *_OF_TOKENIZERS, *kind.SPECIAL_TOKENS_ATTRIBUTES}
    for parent in kind.__mro__:
        known |= set(_arguments(parent.__init__))
    wrong = [key for key in given if key not in known and not hasattr(tokenizer, key)]
    _refuse([f'tokenizer.{key} is not an argument of {kind.__name__}{did_you_mean(key, known)}' for key in wrong])


def _has(config: PreTrainedConfig, key: str) -> bool:
    return not key.startswith('_') and hasattr(config, key) and not callable(getattr(config, key))


def _arguments(function: Callable) -> Iterator[str]:
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and name != 'self':
            yield name


def _attention_problems(wanted: Any) -> Iterator[str]:
    """Yield an error if transformers has no attention `wanted`; a name with `/` is a kernel of the hub."""
    known = {'eager', *ALL_ATTENTION_FUNCTIONS.valid_keys()}
    if isinstance(wanted, str) and '/' not in wanted and wanted.removeprefix('paged|') not in known:
        close = did_you_mean(wanted, known)
        yield f'llm.attn_implementation={wanted!r} is not an attention implementation of transformers{close}'


def _rope_problems(given: Any, own: dict[str, Any]) -> Iterator[str]:
    """Yield errors in the RoPE parameters `given`, which replace the model's `own`."""
    if not isinstance(given, dict):
        yield f'llm.rope_parameters is a dict such as dict(rope_type=..., factor=...), got {given!r}'
        return
    nested = {name: values for name, values in own.items() if isinstance(values, dict)}  # one for each layer type
    if nested:
        for name in given:
            if name not in nested:
                yield f'llm.rope_parameters.{name}: this model has parameters for {", ".join(nested)}'
            else:
                yield from _rope_values(f'llm.rope_parameters.{name}', given[name], nested[name])
    else:
        yield from _rope_values('llm.rope_parameters', given, own)


def _rope_values(place: str, given: Any, own: dict[str, Any]) -> Iterator[str]:
    if not isinstance(given, dict):
        yield f'{place} is a dict such as dict(rope_type=..., factor=...), got {given!r}'
        return
    known, kinds = {*RopeParameters.__annotations__, 'type', *own}, {'default', *ROPE_INIT_FUNCTIONS}
    for key in given:
        if key not in known:
            yield f'{place}.{key} is not a RoPE parameter{did_you_mean(key, known)}'
    kind = given.get('rope_type', given.get('type', 'default'))
    if not isinstance(kind, str) or kind not in kinds:
        close = did_you_mean(kind, kinds)
        yield f'{place}.rope_type={kind!r} is not known; there are {", ".join(sorted(kinds))}{close}'
    elif kind in _SCALED and not isinstance(given.get('factor'), (int, float)):
        yield f'{place} of the type {kind} needs factor, a number, got {given.get("factor")!r}'
    if 'rope_theta' in own and 'rope_theta' not in given:
        yield f"{place} has no rope_theta, and replaces the model's own: add rope_theta={own['rope_theta']!r}"


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ConfigError('; '.join(problems))
