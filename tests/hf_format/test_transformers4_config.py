"""config.json of an export has the keys that transformers 4 reads; transformers 5 reads the same config."""

import json

import pytest
from transformers import (
    AutoConfig,
    Gemma3Config,
    Gemma3TextConfig,
    GlmConfig,
    GPTNeoXConfig,
    GraniteMoeHybridConfig,
    LlamaConfig,
    Mamba2Config,
    Olmo2Config,
    Phi3Config,
    Qwen2_5_VLConfig,
    Qwen2Config,
    Qwen3MoeConfig,
)

from xtune.hf_format.transformers4_config import readable_by_v4, with_v4_keys

LLAMA3 = dict(
    rope_type='llama3',
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=8192,
)
YARN = dict(rope_type='yarn', factor=4.0, original_max_position_embeddings=32768)
LONG = dict(short_factor=[1.0, 1.5], long_factor=[1.0, 2.5])
LAYERS = dict(
    full_attention=dict(rope_type='linear', factor=8.0, rope_theta=1e6),
    sliding_attention=dict(rope_type='default', rope_theta=5000.0),
)
SMALL = dict(hidden_size=16, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2)


def rope(theta=500000.0, **more):
    return dict(rope_parameters=dict(dict(rope_type='default', rope_theta=theta), **more))


@pytest.mark.parametrize(
    ('config', 'keys', 'absent'),
    [
        (LlamaConfig(**rope()), dict(rope_theta=5e5), ['rope_scaling']),
        (LlamaConfig(max_position_embeddings=65536, **rope(**LLAMA3)), dict(rope_theta=5e5, rope_scaling=LLAMA3), []),
        (Qwen2Config(max_position_embeddings=131072, **rope(1e6, **YARN)), dict(rope_theta=1e6, rope_scaling=YARN), []),
        (
            Gemma3TextConfig(rope_parameters=LAYERS),
            dict(rope_theta=1e6, rope_local_base_freq=5000.0, rope_scaling=dict(rope_type='linear', factor=8.0)),
            [],
        ),
        (
            Phi3Config(**SMALL, original_max_position_embeddings=64, **rope(1e4, rope_type='longrope', **LONG)),
            dict(rope_theta=1e4, rope_scaling=dict(type='longrope', **LONG)),
            ['partial_rotary_factor'],
        ),
        (GlmConfig(**rope(partial_rotary_factor=0.25)), dict(partial_rotary_factor=0.25, rope_theta=5e5), []),
        (GPTNeoXConfig(**rope(partial_rotary_factor=0.75)), dict(rotary_emb_base=5e5, rotary_pct=0.75), ['rope_theta']),
        (Olmo2Config(**rope(rope_type='linear', factor=2.0)), dict(rope_scaling=dict(type='linear', factor=2.0)), []),
        (
            LlamaConfig(**rope(rope_type='linear', type='yarn', factor=2.0)),
            dict(rope_scaling=dict(rope_type='linear', type='linear', factor=2.0)),
            [],
        ),
        (Qwen3MoeConfig(num_experts=6, **rope()), dict(num_experts=6, rope_theta=5e5), []),
        (
            GraniteMoeHybridConfig(num_hidden_layers=2, layer_types=['mamba', 'attention'], **rope()),
            dict(layer_types=['mamba', 'attention'], rope_theta=5e5),
            [],
        ),
        (Mamba2Config(), dict(time_step_limit=[0.0, float('inf')]), ['rope_theta']),
    ],
    ids=lambda value: getattr(value, 'model_type', ''),
)
def test_both_versions_read_the_same(config, keys, absent, tmp_path):
    config.dtype = 'bfloat16'
    config.save_pretrained(tmp_path)
    before = AutoConfig.from_pretrained(tmp_path).to_dict()
    readable_by_v4(tmp_path)
    values = json.loads((tmp_path / 'config.json').read_text())
    for key, value in dict(keys, torch_dtype='bfloat16', dtype='bfloat16').items():
        assert values[key] == value, key
    assert not set(absent) & set(values)
    after = AutoConfig.from_pretrained(tmp_path).to_dict()
    for read in (before, after):
        (read.get('rope_parameters') or {}).pop('type', None)  # older name of rope_type, which some classes need
    assert after == before


@pytest.mark.parametrize('make', [Gemma3Config, Qwen2_5_VLConfig])
def test_nested_configs_have_the_keys_too(make, tmp_path):
    make().save_pretrained(tmp_path)
    before = AutoConfig.from_pretrained(tmp_path).to_dict()
    readable_by_v4(tmp_path)
    text = json.loads((tmp_path / 'config.json').read_text())['text_config']
    assert text['rope_theta'] and AutoConfig.from_pretrained(tmp_path).to_dict() == before


def test_keys_that_change_the_config_of_transformers_5_are_not_added():
    values = dict(model_type='of_its_own', rope_parameters=dict(rope_type='default', rope_theta=1e6), dtype='float32')
    assert with_v4_keys(values) == values
    values = json.loads(LlamaConfig(**rope(rope_type='default')).to_json_string())
    assert with_v4_keys(with_v4_keys(values)) == with_v4_keys(values)
