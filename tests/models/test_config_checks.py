"""Checks of config.json before weights are read: attention implementation, context length, stored quantization."""

import pytest
from transformers import (
    BitsAndBytesConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    PhiConfig,
    PreTrainedConfig,
)

from xtune.errors import ModelError
from xtune.models.legacy.alibi_config import BaichuanAlibiConfig
from xtune.models.loading.config_checks import (
    check_attention,
    context_length,
    describe_stored_quantization,
    length_warning,
)

YARN = dict(rope_type='yarn', factor=4.0, rope_theta=10000.0)
LLAMA3 = dict(rope_type='llama3', factor=8.0, original_max_position_embeddings=1024, rope_theta=10000.0)
LLAMA3 |= dict(low_freq_factor=1.0, high_freq_factor=4.0)


@pytest.mark.parametrize(
    ('config', 'limit'),
    [
        (LlamaConfig(max_position_embeddings=512), 512),
        (LlamaConfig(max_position_embeddings=512, rope_parameters=YARN), 2048),
        (LlamaConfig(max_position_embeddings=8192, rope_parameters=LLAMA3), 8192),  # scaled already
        (LlamaConfig(max_position_embeddings=4096, rope_parameters=LLAMA3), 8192),
        (GPT2Config(n_positions=256), 256),
        (Gemma3TextConfig(max_position_embeddings=512), 512),  # RoPE of each kind of layer
        (MambaConfig(), None),
        (BaichuanAlibiConfig(max_position_embeddings=512), None),
    ],
)
def test_context_length(config, limit):
    assert context_length(config) == limit
    assert length_warning(config, limit or 10**6) is None
    if limit is not None:
        warning = length_warning(config, limit + 1)
        assert f'max_length={limit + 1} ' in warning and f' {limit} tokens' in warning
        rope = getattr(config, 'rope_parameters', None) or {}
        # Only for unscaled RoPE that is the same in all layers.
        assert ('rope_parameters' in warning) == (rope.get('rope_type') == 'default')


def test_the_advice_for_longer_samples_keeps_the_models_rope_parameters():
    config = PhiConfig(max_position_embeddings=512)
    options = [word for word in length_warning(config, 1025).split() if word.startswith('llm.rope_parameters.')]
    advised = dict(option.removeprefix('llm.rope_parameters.').split('=') for option in options)
    rope = {key: str(value) for key, value in config.rope_parameters.items()}
    assert advised == {**rope, 'rope_type': 'linear', 'factor': '3.0'}
    assert 'partial_rotary_factor' in advised
    values = {key: value if key == 'rope_type' else float(value) for key, value in advised.items()}
    assert context_length(PhiConfig(max_position_embeddings=512, rope_parameters=values)) == 1536


def test_an_unsupported_attention_implementation_is_refused():
    with pytest.raises(ModelError, match=r"Gemma2ForCausalLM .*\b50\b.*llm.attn_implementation='eager'"):
        check_attention(Gemma2Config(attn_logit_softcapping=50.0), 'sdpa')
    with pytest.raises(ModelError, match="Gemma2ForCausalLM .*llm.attn_implementation='eager'"):
        check_attention(Gemma2Config(attn_logit_softcapping=None), 'sdpa')
    for config, wanted in ((Gemma2Config(), 'eager'), (Gemma2Config(), None), (LlamaConfig(), 'sdpa')):
        check_attention(config, wanted)
    check_attention(PreTrainedConfig(), 'sdpa')  # of a class that transformers does not know


@pytest.mark.parametrize(
    ('stored', 'text'),
    [
        (None, None),
        (dict(quant_method='gptq', bits=4), 'stored in gptq (4 bits)'),
        (dict(quant_method='fp8'), 'stored in fp8'),
        (BitsAndBytesConfig(load_in_8bit=True), 'stored in bitsandbytes (8 bits)'),
        (BitsAndBytesConfig(load_in_4bit=True), 'stored in bitsandbytes (4 bits)'),
    ],
    ids=str,
)
def test_description_of_stored_quantization(stored, text):
    config = LlamaConfig()
    if stored is not None:
        config.quantization_config = stored
    assert describe_stored_quantization(config) == text
