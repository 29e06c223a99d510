"""Every private name of transformers that xtune uses is there and does what xtune relies on."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.masking_utils import create_causal_mask

from xtune.compat import transformers_private

SIZES = dict(
    vocab_size=32,
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
)


def test_the_name_of_the_attention_is_read_and_set():
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    model.set_attn_implementation('eager')
    assert transformers_private.attention_of(model.config) == 'eager'
    config = LlamaConfig(**SIZES)
    transformers_private.set_attention_of(config, 'eager')
    assert transformers_private.attention_of(LlamaForCausalLM(config).config) == 'eager'


@pytest.mark.parametrize('name, dtype', [('eager', torch.float32), ('sdpa', torch.bool)])
def test_masks_are_made_for_the_attention_of_the_config(name, dtype):
    config = LlamaConfig(**SIZES)
    transformers_private.set_attention_of(config, name)
    mask = create_causal_mask(
        config=config,
        inputs_embeds=torch.zeros(1, 4, 0),
        attention_mask=None,
        past_key_values=None,
        position_ids=torch.tensor([[0, 1, 0, 1]]),
    )
    assert mask.dtype == dtype and mask.shape == (1, 1, 4, 4)


def test_support_for_sdpa_is_read_from_the_class():
    assert transformers_private.supports_sdpa(LlamaForCausalLM) is True
    assert '_supports_sdpa' in dir(LlamaForCausalLM)
    assert transformers_private.supports_sdpa(None) is True


def test_a_model_is_made_of_its_class_and_config():
    model = transformers_private.from_config(
        LlamaForCausalLM, LlamaConfig(**SIZES), dtype=torch.bfloat16, attn_implementation='eager'
    )
    assert type(model) is LlamaForCausalLM and model.dtype == torch.bfloat16
    assert transformers_private.attention_of(model.config) == 'eager'


def test_weights_that_are_kept_in_float32_are_listed():
    assert {'_keep_in_fp32_modules', '_keep_in_fp32_modules_strict'} <= set(dir(LlamaForCausalLM))
    model = torch.nn.Linear(1, 1)
    model._keep_in_fp32_modules, model._keep_in_fp32_modules_strict = ['half_only'], ['always']
    assert transformers_private.kept_in_float32(model, torch.bfloat16) == {'always'}
    assert transformers_private.kept_in_float32(model, torch.float16) == {'always', 'half_only'}
