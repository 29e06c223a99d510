"""gpt-oss on a tiny random model: what the presets of it rely on."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, GptOssConfig

from xtune.config.load import load
from xtune.config.presets import find, presets, recipe_of

PRESETS = [name for name in presets() if name.startswith('gpt_oss')]


@pytest.fixture
def llm():
    """A gpt-oss of one layer with two experts."""
    config = GptOssConfig(
        **dict(vocab_size=99, hidden_size=32, intermediate_size=32, num_hidden_layers=1, head_dim=16),
        **dict(num_attention_heads=2, num_key_value_heads=2, num_local_experts=2, num_experts_per_tok=1),
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation='eager')


def test_transformers_does_not_isolate_packed_samples(llm):
    """If this fails, transformers keeps them apart: take its rules out of configs/model_rules.tsv."""
    first, second = torch.arange(1, 9)[None], torch.arange(20, 28)[None]
    positions = torch.arange(8).repeat(2)[None]
    with torch.no_grad():
        packed = llm(torch.cat([first, second], 1), position_ids=positions, use_cache=False).logits[:, 8:]
        alone = llm(second, use_cache=False).logits
    assert not torch.allclose(packed, alone, atol=1e-4)
    assert recipe_of('gpt_oss_20b_lora_alpaca_e1').options()['pack'] is False


def test_presets_do_not_pack():
    assert PRESETS and not any(load(find(name)).pack for name in PRESETS)


def test_lora_reaches_attention_and_learns(llm):
    llm = get_peft_model(llm, LoraConfig(r=4, target_modules='all-linear', task_type='CAUSAL_LM'))
    trained = {name: p for name, p in llm.named_parameters() if p.requires_grad}
    assert {name.split('.lora_')[0].rpartition('.')[2] for name in trained} == {'q_proj', 'k_proj', 'v_proj', 'o_proj'}
    ids = torch.arange(1, 17)[None]
    optimizer, losses = torch.optim.AdamW(trained.values(), lr=0.1), []
    for _ in range(30):
        losses.append(llm(ids, labels=ids, use_cache=False).loss)
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[0] - losses[-1] > 0.1
