"""Runs on a base in float8: they learn, resume, convert and merge as others do.

The command refuses CPUs; what it is made of does not.
"""

import json

import pytest
import torch
from mmengine.runner import set_random_seed
from safetensors.torch import load_file
from training import build_data_of, make_trainer

from xtune.config.flatten import flatten
from xtune.config.load import load
from xtune.config.strategy_traits import traits_of
from xtune.config.wire import wire
from xtune.data.rank_shard import RankShard
from xtune.engine.build_runner import build_runner
from xtune.engine.optimizations import optimize
from xtune.engine.optimizer import build_optimizer
from xtune.engine.prepare_model import build_llm
from xtune.engine.summary import model_lines
from xtune.errors import ModelError

CPU = torch.device('cpu')


def test_float8_layers_are_frozen(make_config):
    job = wire(load(make_config('fp8_lora', **{'lora.modules_to_save': ['q_proj'], 'lora.target_modules': ['v_proj']})))
    with pytest.raises(ModelError, match=r"lora.modules_to_save, or add 'q_proj' to quantization.skip"):
        build_llm(job.model, CPU)
    job = wire(load(make_config('fp8_lora', **{'lora.modules_to_save': ['lm_head']})))
    llm, _ = build_llm(job.model, CPU)
    assert any(p.requires_grad and p.dtype == torch.float32 for name, p in llm.named_parameters() if 'lm_head' in name)


def train(config, start=None):
    """Do what the command does with `config`, which refuses CPUs; return the losses."""
    job = wire(load(config), config.stem)
    job.work_dir.mkdir(parents=True, exist_ok=True)
    data = build_data_of(job, RankShard.of_rank(0, 1, 1))
    set_random_seed(job.values.seed)
    llm, dtype = build_llm(job.model, CPU)
    optimized = optimize(job.step, llm, dtype, CPU, None, num_ranks=1)
    task = optimized.task
    optimizer = build_optimizer(job.optimizer, traits_of(job.strategy.name, 1), task.trained_parameters().values())
    trainer = make_trainer(task, optimizer, job.schedule.max_grad_norm, optimized.wrappers)
    build_runner(job, data, trainer, flatten(config), start).train()
    rows = [json.loads(line) for line in (job.work_dir / 'metrics.jsonl').read_text().splitlines()]
    return {row['step']: (row['loss'], row['grad_norm']) for row in rows if 'loss' in row}


def test_run_learns_resumes_bit_exactly_and_merges_into_the_base(make_config, xtune, tiny_model, tmp_path):
    options = {'optimizer.lr': 2e-2, 'schedule.warmup_ratio': 0.0, 'max_length': 64, 'train_dataset.limit': 8}
    options |= {'schedule.batch_size': 1, 'schedule.max_epochs': 2}
    config = make_config('fp8_lora', 'whole', **options)
    whole = train(config)
    assert whole[4][0] < whole[1][0] - 0.1
    on_bf16 = train(make_config('lora', 'plain', precision='bf16', **options))
    for step, (loss, norm) in on_bf16.items():
        assert whole[step] == (pytest.approx(loss, rel=5e-3), pytest.approx(norm, rel=0.1))
    first, last = (tmp_path / 'whole' / f'epoch_{number}.pth' for number in (1, 2))
    again = train(make_config('fp8_lora', 'more', **options), first)
    assert again and again == {step: values for step, values in whole.items() if step in again}

    saved = torch.load(last, weights_only=True)['state_dict']
    plain = torch.load(tmp_path / 'plain' / 'epoch_2.pth', weights_only=True)['state_dict']
    assert {name: (p.shape, p.dtype) for name, p in saved.items()} == {n: (p.shape, p.dtype) for n, p in plain.items()}

    assert xtune('convert', 'pth_to_hf', config, last, tmp_path / 'hf')[0] == 0
    code, _, err = xtune('convert', 'merge', tiny_model, tmp_path / 'hf', tmp_path / 'merged')
    assert code == 0, err
    base, merged = (load_file(folder / 'model.safetensors') for folder in (tiny_model, tmp_path / 'merged'))
    adapter = load_file(tmp_path / 'hf' / 'adapter_model.safetensors')
    name = 'model.layers.0.self_attn.q_proj'
    pieces = [adapter[f'base_model.model.{name}.lora_{letter}.weight'] for letter in 'BA']
    settings = json.loads((tmp_path / 'hf' / 'adapter_config.json').read_text())
    change = pieces[0] @ pieces[1] * settings['lora_alpha'] / settings['r']
    torch.testing.assert_close(merged[f'{name}.weight'], base[f'{name}.weight'] + change, rtol=1e-5, atol=1e-6)
    code, out, err = xtune('chat', tmp_path / 'merged', '--prompt', 'Hi', '--max-new-tokens', '2')
    assert code == 0, err


def test_summary_describes_the_float8_base(make_config):
    job = wire(load(make_config('fp8_lora')))
    llm, dtype = build_llm(job.model, CPU)
    assert (
        dtype == torch.bfloat16
        and 'base Float8 (7 linear layers)' in dict(model_lines(job.model, llm, dtype, CPU))['model']
    )
