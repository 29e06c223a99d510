"""The summary before the first step: devices and base model."""

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, MixtralConfig

from xtune.config.load import load
from xtune.config.wire import wire
from xtune.engine.prepare_model import build_llm
from xtune.engine.summary import model_lines, placement_text
from xtune.parallel.compatibility import SHARDED_WEIGHTS, STRATEGIES


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_summary_describes_the_placement_of_each_strategy(strategy):
    text = placement_text(strategy)
    assert ('the full model' in text) == (strategy not in SHARDED_WEIGHTS)
    assert ('shard of' in text) == (strategy not in ('one_device', 'ddp'))
    assert ('CPU memory' in text) == strategy.endswith('_offload')


def base_of(config):
    """Return the text about the base of a run on a CPU."""
    job, device = wire(load(config)), torch.device('cpu')
    llm, dtype = build_llm(job.model, device)
    return dict(model_lines(job.model, llm, dtype, device))['model'].partition(', base ')[2]


def test_summary_has_the_format_of_the_base_and_of_unquantized_experts(make_config, tmp_path):
    sizes = dict(vocab_size=64, hidden_size=64, intermediate_size=512, num_hidden_layers=2)
    config = MixtralConfig(**sizes, num_attention_heads=2, num_key_value_heads=2, num_local_experts=16)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / 'moe')
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / 'moe', quantization_config=BitsAndBytesConfig(load_in_4bit=True), device_map={'': 'cpu'}
    )
    model.save_pretrained(tmp_path / 'stored')
    size = '0.01 GiB of experts'  # 3 x 16 x 64 x 512 x 2 layers x 4 bytes
    quantized = base_of(make_config('qlora', base_model=str(tmp_path / 'moe')))
    assert quantized.startswith('BitsAndBytes, ') and size in quantized and 'fp32' in quantized
    assert base_of(make_config('lora', base_model=str(tmp_path / 'moe'))) == 'not quantized'
    stored = base_of(make_config('lora', base_model=str(tmp_path / 'stored')))
    assert 'bitsandbytes (4 bits)' in stored and size in stored
    assert base_of(make_config('qlora')) == 'BitsAndBytes'
    model.model.layers[0].mlp.experts.down_proj.data = torch.zeros(16, 64, 512, dtype=torch.float8_e4m3fn)
    job = wire(load(make_config('lora')))
    assert 'experts' not in dict(model_lines(job.model, model, torch.bfloat16, torch.device('cpu')))['model']
