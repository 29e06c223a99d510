"""Keys of `llm` and `tokenizer` that from_pretrained or xtune would ignore are errors that name the option for it."""

import pytest
from golden import short
from transformers import AutoModelForCausalLM, Gemma3TextConfig, GPT2Config, LlamaConfig

from xtune.config.loader_keys import check_llm_keys, check_reserved_keys, check_tokenizer_keys
from xtune.errors import ConfigError

LLAMA = LlamaConfig(rope_parameters=dict(rope_type='default', rope_theta=5e5))


def own_loader(name, dtype, device_map, **more):
    """A loader of the user's."""


WITHOUT_EFFECT = [
    'dtype',
    'torch_dtype',
    'device_map',
    'max_memory',
    'tp_plan',
    'quantization_config',
    'load_in_4bit',
    'low_cpu_mem_usage',
    'state_dict',
    'rope_scaling',
    'use_cache',
    'use_flash_attention_2',
]


def test_what_has_no_effect_names_the_option_that_does_it(golden):
    messages = {}
    for key in WITHOUT_EFFECT:
        with pytest.raises(ConfigError, match=f'llm.{key}=') as caught:
            check_reserved_keys(AutoModelForCausalLM.from_pretrained, {key: 'x'})
        messages[key] = caught.value
    golden('config.llm_without_effect', messages)


def test_a_loader_of_the_users_gets_what_it_takes():
    check_reserved_keys(own_loader, dict(load_in_4bit=True, state_dict={}, anything=1))
    with pytest.raises(ConfigError, match='llm.device_map'):
        check_reserved_keys(own_loader, dict(device_map='auto'))


UNKNOWN = [
    dict(attn_implementaton='eager'),
    dict(attention_dropuot=0.1),
    dict(temperature=0.7),
    dict(from_pretrained=1),
    dict(attn_implementation='spda'),
    dict(rope_parameters=3),
    dict(rope_parameters=dict(rope_type='liner', rope_theta=5e5)),
    dict(rope_parameters=dict(rope_type='linear', facotr=8.0, rope_theta=5e5)),
    dict(rope_parameters=dict(rope_type='linear', rope_theta=5e5)),
    dict(rope_parameters=dict(rope_type='linear', factor=8.0)),
]


def test_unknown_keys_are_refused_with_close_names(golden):
    messages = {}
    for section in UNKNOWN:
        with pytest.raises(ConfigError) as caught:
            check_llm_keys(section, LLAMA)
        messages[short(section)] = caught.value
    golden('config.llm_unknown_keys', messages)


def test_arguments_and_attributes_pass():
    check_llm_keys(
        dict(
            attn_implementation='sdpa',
            trust_remote_code=False,
            revision='main',
            local_files_only=True,
            use_safetensors=True,
            variant='fp16',
            attention_dropout=0.1,
            rope_parameters=dict(rope_type='linear', factor=8.0, rope_theta=5e5),
        ),
        LLAMA,
    )
    check_llm_keys(
        dict(hidden_size=64, attn_pdrop=0.0, attn_implementation='kernels-community/flash-attn'), GPT2Config()
    )


def test_rope_of_each_kind_of_layer_is_checked():
    config = Gemma3TextConfig()
    own = config.rope_parameters
    assert {'full_attention', 'sliding_attention'} <= set(own)
    check_llm_keys(dict(rope_parameters={'full_attention': dict(own['full_attention'], factor=8.0)}), config)
    with pytest.raises(ConfigError, match='full_attention'):
        check_llm_keys(dict(rope_parameters=dict(rope_type='linear', factor=8.0)), config)
    with pytest.raises(ConfigError, match='full_attention.facto .*`factor`'):
        check_llm_keys(dict(rope_parameters={'full_attention': dict(own['full_attention'], facto=8.0)}), config)


def test_keys_of_a_tokenizer(tokenizer):
    check_tokenizer_keys(
        dict(trust_remote_code=False, use_fast=True, padding_side='left', add_prefix_space=True), tokenizer
    )
    with pytest.raises(ConfigError, match='tokenizer.padding_sde .*`padding_side`'):
        check_tokenizer_keys(dict(padding_sde='left'), tokenizer)
    with pytest.raises(ConfigError, match='tokenizer.torch_dtype'):
        check_tokenizer_keys(dict(torch_dtype='auto'), tokenizer)


def test_code_of_a_models_own_may_take_any_key():
    class OwnConfig(LlamaConfig):
        """As a folder with code of its own defines it."""

    check_llm_keys(dict(any_key=1), OwnConfig())
