"""LoRA on a mixture of experts: which layers `all-linear` adapts, and that the experts stay out of it."""

import pytest
import torch
from transformers import AutoModelForCausalLM, DeepseekV2Config, MixtralConfig, Qwen3MoeConfig

from xtune.config.load import load
from xtune.config.wire import wire
from xtune.engine.prepare_model import build_llm

SMALL = dict(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
SMALL |= dict(intermediate_size=32, num_experts_per_tok=2)
LATENT = dict(q_lora_rank=None, kv_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8)
CONFIGS = {
    'mixtral': (MixtralConfig(**SMALL, num_local_experts=4), {'q_proj', 'k_proj', 'v_proj', 'o_proj'}),
    'qwen3_moe': (
        Qwen3MoeConfig(**SMALL, num_experts=4, moe_intermediate_size=16),
        {'q_proj', 'k_proj', 'v_proj', 'o_proj'},
    ),
    'deepseek_v2': (
        DeepseekV2Config(**SMALL, **LATENT, first_k_dense_replace=1, n_routed_experts=4, moe_intermediate_size=16),
        {'q_proj', 'kv_a_proj_with_mqa', 'kv_b_proj', 'o_proj'},
    ),
}


@pytest.mark.parametrize('kind', CONFIGS)
def test_all_linear_adapts_attention_and_no_expert(kind, make_config, tmp_path):
    config, expected = CONFIGS[kind]
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / kind)
    job = wire(load(make_config('lora', base_model=str(tmp_path / kind), **{'lora.lora_dropout': 0.1})))
    llm, _ = build_llm(job.model, torch.device('cpu'))
    trained = [name for name, parameter in llm.named_parameters() if parameter.requires_grad]
    assert {name.split('.lora_')[0].split('.')[-1] for name in trained} == expected
    assert not any('expert' in name or 'mlp' in name for name in trained)
