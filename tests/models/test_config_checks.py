"""What config.json tells before weights are read: attention that a model lacks, rows it is not made for, forms."""

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
from xtune.models.loading.config_checks import check_attention, length_warning, made_for, stored_form

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
def test_the_length_that_a_model_is_made_for(config, limit):
    assert made_for(config) == limit
    assert length_warning(config, limit or 10**6) is None
    if limit is not None:
        said = length_warning(config, limit + 1)
        assert f'max_length={limit + 1}, ' in said and f'made for {limit} tokens' in said
        rope = getattr(config, 'rope_parameters', None) or {}
        assert ('rope_parameters' in said) == (rope.get('rope_type') == 'default')  # one for all layers, not scaled


def test_the_advice_on_longer_rows_keeps_what_the_model_has():
    config = PhiConfig(max_position_embeddings=512)
    advice = length_warning(config, 1025).partition('such as by ')[2].split()
    given = dict(pair.removeprefix('llm.rope_parameters.').split('=') for pair in advice)
    assert given == {**{k: str(v) for k, v in config.rope_parameters.items()}, 'rope_type': 'linear', 'factor': '3.0'}
    assert 'partial_rotary_factor' in given
    values = {k: v if k == 'rope_type' else float(v) for k, v in given.items()}
    assert made_for(PhiConfig(max_position_embeddings=512, rope_parameters=values)) == 1536


def test_attention_that_a_model_lacks_is_refused():
    with pytest.raises(ModelError) as refused:
        check_attention(Gemma2Config(attn_logit_softcapping=50.0), 'sdpa')
    assert 'Gemma2ForCausalLM caps the logits of its attention at 50' in str(refused.value)
    assert "set llm.attn_implementation='eager'" in str(refused.value)
    with pytest.raises(ModelError, match='Gemma2ForCausalLM has no such attention'):
        check_attention(Gemma2Config(attn_logit_softcapping=None), 'sdpa')
    for config, wanted in ((Gemma2Config(), 'eager'), (Gemma2Config(), None), (LlamaConfig(), 'sdpa')):
        check_attention(config, wanted)
    check_attention(PreTrainedConfig(), 'sdpa')  # of a class that transformers does not know


@pytest.mark.parametrize(
    ('stored', 'form'),
    [
        (None, None),
        (dict(quant_method='gptq', bits=4), 'stored in gptq (4 bits)'),
        (dict(quant_method='fp8'), 'stored in fp8'),
        (BitsAndBytesConfig(load_in_8bit=True), 'stored in bitsandbytes (8 bits)'),
        (BitsAndBytesConfig(load_in_4bit=True), 'stored in bitsandbytes (4 bits)'),
    ],
    ids=str,
)
def test_the_form_of_stored_weights(stored, form):
    config = LlamaConfig()
    if stored is not None:
        config.quantization_config = stored
    assert stored_form(config) == form
