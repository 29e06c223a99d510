"""Keys of `llm` and `tokenizer` that from_pretrained or xtune would ignore are errors that name the option for it."""

import pytest
from transformers import AutoModelForCausalLM, Gemma3TextConfig, GPT2Config, LlamaConfig

from xtune.config.loader_keys import check_llm_keys, check_reserved_keys, check_tokenizer_keys
from xtune.errors import ConfigError

LLAMA = LlamaConfig(rope_parameters=dict(rope_type='default', rope_theta=5e5))


def own_loader(name, dtype, device_map, **more):
    """A loader of the user's."""


@pytest.mark.parametrize(
    ('key', 'said'),
    [
        ('dtype', "llm.dtype='x' has no effect: set precision"),
        ('torch_dtype', 'set precision'),
        ('device_map', 'to use several, set strategy'),
        ('max_memory', 'set strategy'),
        ('tp_plan', 'set strategy'),
        ('quantization_config', 'set the section quantization'),
        ('load_in_4bit', 'set the section quantization'),
        ('low_cpu_mem_usage', 'transformers 5 ignores it'),
        ('state_dict', 'the weights are those of base_model'),
        ('rope_scaling', 'set llm.rope_parameters'),
        ('use_cache', 'leave it out'),
        ('use_flash_attention_2', "llm.attn_implementation='flash_attention_2'"),
    ],
)
def test_what_has_no_effect_names_the_option_that_does_it(key, said):
    with pytest.raises(ConfigError, match=said):
        check_reserved_keys(AutoModelForCausalLM.from_pretrained, {key: 'x'})


def test_a_loader_of_the_users_gets_what_it_takes():
    check_reserved_keys(own_loader, dict(load_in_4bit=True, state_dict={}, anything=1))
    with pytest.raises(ConfigError, match='llm.device_map'):
        check_reserved_keys(own_loader, dict(device_map='auto'))


@pytest.mark.parametrize(
    ('section', 'message'),
    [
        (dict(attn_implementaton='eager'), 'did you mean `attn_implementation`'),
        (dict(attention_dropuot=0.1), 'LlamaConfig; did you mean `attention_dropout`'),
        (dict(temperature=0.7), 'llm.temperature '),
        (dict(from_pretrained=1), 'llm.from_pretrained '),
        (dict(attn_implementation='spda'), "'spda'.*did you mean `sdpa`"),
        (dict(rope_parameters=3), 'llm.rope_parameters '),
        (dict(rope_parameters=dict(rope_type='liner', rope_theta=5e5)), 'did you mean `linear`'),
        (
            dict(rope_parameters=dict(rope_type='linear', facotr=8.0, rope_theta=5e5)),
            'facotr .*`factor`',
        ),
        (dict(rope_parameters=dict(rope_type='linear', rope_theta=5e5)), 'linear needs factor.*None'),
        (dict(rope_parameters=dict(rope_type='linear', factor=8.0)), 'rope_theta=500000.0'),
    ],
)
def test_unknown_keys_are_refused_with_close_names(section, message):
    with pytest.raises(ConfigError, match=message):
        check_llm_keys(section, LLAMA)


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
    with pytest.raises(ConfigError, match='this model has parameters for'):
        check_llm_keys(dict(rope_parameters=dict(rope_type='linear', factor=8.0)), config)
    with pytest.raises(ConfigError, match='full_attention.facto .*did you mean `factor`'):
        check_llm_keys(dict(rope_parameters={'full_attention': dict(own['full_attention'], facto=8.0)}), config)


def test_keys_of_a_tokenizer(tokenizer):
    check_tokenizer_keys(
        dict(trust_remote_code=False, use_fast=True, padding_side='left', add_prefix_space=True), tokenizer
    )
    with pytest.raises(ConfigError, match='tokenizer.padding_sde .*did you mean `padding_side`'):
        check_tokenizer_keys(dict(padding_sde='left'), tokenizer)
    with pytest.raises(ConfigError, match='tokenizer.torch_dtype'):
        check_tokenizer_keys(dict(torch_dtype='auto'), tokenizer)


def test_code_of_a_models_own_may_take_any_key():
    class OwnConfig(LlamaConfig):
        """As a folder with code of its own defines it."""

    check_llm_keys(dict(any_key=1), OwnConfig())
