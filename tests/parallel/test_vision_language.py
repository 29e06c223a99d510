"""Vision-language checkpoints under strategies that slice weights: text trains, and the vision tower stays as it is."""

import json

import pytest
import torch
from pairs import case, run_pair
from safetensors.torch import load_file
from transformers import CONFIG_MAPPING

from xtune.config.strategies import deepspeed_strategy
from xtune.engine import checkpoint_io
from xtune.models.loading.model_class import auto_class

CASES = [('full', 'ddp'), ('full', 'zero2'), ('full', 'zero3'), ('full', 'fsdp2'), ('lora', 'fsdp2'), ('lora', 'zero3')]


@pytest.fixture(scope='module')
def base(tmp_path_factory, tokenizer):
    """A tiny Qwen2.5-VL with SmolLM2's tokenizer."""
    text = dict(
        **dict(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2),
        **dict(num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256),
        rope_parameters=dict(rope_type='default', rope_theta=10000.0, mrope_section=[2, 1, 1]),
    )
    vision = dict(depth=2, hidden_size=32, intermediate_size=64, num_heads=4, out_hidden_size=32)
    torch.manual_seed(0)
    config = CONFIG_MAPPING['qwen2_5_vl'](text_config=text, vision_config=vision)
    folder = tmp_path_factory.mktemp('models') / 'base'
    auto_class(config).from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def losses(folder):
    lines = (folder / 'metrics.jsonl').read_text().splitlines()
    return [json.loads(line)['loss'] for line in lines if 'loss' in line]


@pytest.mark.slow
def test_two_ranks_have_the_losses_of_one(base, make_config, tmp_path):
    options = {'base_model': str(base), 'schedule.max_epochs': 2, 'precision': 'fp32', 'schedule.batch_size': 1}
    options |= {'optimizer.weight_decay': 0.1, 'activation_checkpointing': 'none'}

    def config(method, name, accumulate):
        plan = deepspeed_strategy(name) if name.startswith('zero') else {'name': name, 'deepspeed': None}
        own = {} if method == 'full' else {'lora.lora_dropout': 0.0, 'optimizer.weight_decay': 0.0}
        given = {**options, **own, 'strategy': plan, 'schedule.gradient_accumulation_steps': accumulate}
        return make_config(method, name=f'{method}_{name}', **given)

    from xtune.config.run_config import RunConfig
    from xtune.engine.train import train

    for method in ('full', 'lora'):
        assert train(RunConfig.read(config(method, 'one_device', 2))) == 0
    reports = run_pair(tmp_path / 'pair', [case(config(*one, 1)) for one in CASES], timeout=600)
    assert not [report['error'] for process in reports for report in process if report['error']]
    vision = {n: t for n, t in load_file(base / 'model.safetensors').items() if n.startswith('visual.')}
    for method, name in CASES:
        folder = tmp_path / f'{method}_{name}'
        assert losses(folder) == pytest.approx(losses(tmp_path / f'{method}_one_device'), rel=1e-4)
        state = checkpoint_io.load(folder / 'epoch_2.pth')['state_dict']
        if method == 'full':
            assert all(torch.equal(state[f'model.{name}'], tensor) for name, tensor in vision.items())
        else:
            assert not any('visual' in name for name in state)
