"""A checkpoint is resumed with another strategy and another number of ranks, with the same losses.

Runs of 8 steps on the same sequences, saved at steps 4 and 8. The runs with two ranks share one launch.
"""

import json
import shutil

import pytest
import torch
from pairs import case, run_pair

from xtune.config.flatten import flatten
from xtune.config.presets import find
from xtune.config.run_config import RunConfig
from xtune.engine import checkpoint_io
from xtune.engine.train import train
from xtune.errors import CheckpointError
from xtune.export.pth_to_hf import pth_to_hf

# The runs take two minutes.
pytestmark = pytest.mark.slow
ROWS = [{'instruction': f'Name {n} things.', 'input': '', 'output': ' '.join(['thing'] * n)} for n in range(1, 25)]
# Run -> method, strategy, and the run whose step 4 it resumes from.
TWO_RANK_RUNS = {
    'ddp': ('lora', 'ddp', None),
    'fsdp2': ('lora', 'fsdp2', None),
    'zero3': ('lora', 'zero3', None),
    'fsdp2_full': ('full', 'fsdp2', None),
    'zero3_full': ('full', 'zero3', None),
    'ddp_ddp': ('lora', 'ddp', 'ddp'),
    'fsdp2_fsdp2': ('lora', 'fsdp2', 'fsdp2'),
    'zero3_zero3': ('lora', 'zero3', 'zero3'),
    'fsdp2_full_fsdp2_full': ('full', 'fsdp2', 'fsdp2_full'),
    'one_fsdp2': ('lora', 'fsdp2', 'one'),
    'fsdp2_zero2': ('lora', 'zero2', 'fsdp2'),
    'zero3_ddp': ('lora', 'ddp', 'zero3'),
    'zero3_full_fsdp2_full': ('full', 'fsdp2', 'zero3_full'),
}


def losses(work_dir):
    rows = [json.loads(line) for line in (work_dir / 'metrics.jsonl').read_text().splitlines()]
    return {row['step']: row['loss'] for row in rows if 'loss' in row}


@pytest.fixture(scope='module')
def runs(once, tiny_model):
    """A folder with the work_dirs of the runs, and the two configs."""
    return once('resharding', lambda folder: make_runs(folder, tiny_model, TWO_RANK_RUNS))


def make_runs(folder, tiny_model, names):
    """Run the named runs, and one run on a single rank."""
    (folder / 'rows.json').write_text(json.dumps(ROWS))
    for method, preset in {'lora': 'smollm2_135m_lora_alpaca_e1', 'full': 'smollm2_135m_full_selfcog_e2'}.items():
        options = {
            'base_model': str(tiny_model),
            'train_dataset.path': str(folder / 'rows.json'),
            'train_dataset.map_fn': 'alpaca',
            'val_dataset': None,
            'max_length': 64,
            'optimizer.lr': 2e-3,
            'schedule.batch_size': 1,
            'schedule.max_epochs': 2,
            'schedule.max_steps': 8,
            'pack': False,
            'checkpoint.every_steps': 4,
            'checkpoint.every_epochs': None,
            'checkpoint.keep': 9,
            'chat_samples.every_steps': None,
            'log.every_steps': 1,
            'log.plot': False,
            'log.tensorboard': False,
            'data.num_proc': 1,
        }
        options |= {'train_dataset.map_args': None} if method == 'full' else {'lora.lora_dropout': 0.0}
        (folder / f'{method}.py').write_text(flatten(find(preset), options))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XTUNE_CACHE', str(folder / 'cache'))
        alone(folder, 'one', 'lora')
        run_pair(folder / 'two', [in_two(folder, name) for name in names])
        if 'ddp' in names:
            alone(folder, 'ddp_one', 'lora', str(folder / 'ddp' / 'iter_4.pth'))


def alone(folder, name, method, resume=False):
    options = {'work_dir': str(folder / name), 'schedule.gradient_accumulation_steps': 4}
    train(RunConfig.read(folder / f'{method}.py', options), resume)


def in_two(folder, name):
    method, strategy, before = TWO_RANK_RUNS[name]
    options = {'work_dir': str(folder / name), 'schedule.gradient_accumulation_steps': 2, 'strategy.name': strategy}
    return case(folder / f'{method}.py', before and folder / before / 'iter_4.pth', **options)


@pytest.mark.parametrize('name', ['ddp', 'fsdp2', 'zero3', 'fsdp2_full'])
def test_the_same_strategy_resumes_bit_exactly(runs, name):
    whole, resumed = losses(runs / name), losses(runs / f'{name}_{name}')
    assert sorted(resumed) == [5, 6, 7, 8]
    assert resumed == {step: whole[step] for step in resumed}


@pytest.mark.parametrize(
    ('before', 'after'),
    [('zero3', 'ddp'), ('ddp', 'one'), ('one', 'fsdp2'), ('fsdp2', 'zero2'), ('zero3_full', 'fsdp2_full')],
)
def test_another_strategy_resumes(runs, before, after):
    whole, resumed = losses(runs / before), losses(runs / f'{before}_{after}')
    assert sorted(resumed) == [5, 6, 7, 8]
    assert resumed == pytest.approx({step: whole[step] for step in resumed}, rel=1e-5)
    assert whole[8] < whole[1] - 0.01  # it did learn, so a lost state would show


@pytest.mark.parametrize('name', ['zero3', 'ddp', 'fsdp2'])
def test_strategies_have_equal_losses(runs, name):
    assert losses(runs / name) == pytest.approx(losses(runs / 'one'), rel=1e-5)


def test_strategies_have_equal_losses_in_full_fine_tuning(runs):
    assert losses(runs / 'zero3_full') == pytest.approx(losses(runs / 'fsdp2_full'), rel=1e-5)


@pytest.mark.parametrize('name', ['one', 'zero3', 'ddp', 'fsdp2', 'fsdp2_zero2'])
def test_an_adapter_checkpoint_does_not_contain_the_base(runs, name):
    path = runs / name / 'iter_8.pth'
    state = checkpoint_io.load(path)['state_dict']
    assert all('lora_' in key for key in state)
    adapter = sum(tensor.numel() * 4 for tensor in state.values())
    assert path.stat().st_size < 2 * 3 * adapter


def test_a_sharded_checkpoint_is_converted_to_a_model(runs, tmp_path):
    from transformers import AutoModelForCausalLM

    checkpoint = runs / 'fsdp2_full' / 'iter_8.pth'
    assert sorted(p.name for p in checkpoint.iterdir()) == ['part_00000_of_00002.pth', 'part_00001_of_00002.pth']
    pth_to_hf(runs / 'fsdp2_full' / 'full.py', checkpoint, tmp_path / 'hf')
    model = AutoModelForCausalLM.from_pretrained(tmp_path / 'hf')
    state = checkpoint_io.load(checkpoint)['state_dict']
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, state[name].to(parameter.dtype)), name


def test_with_a_missing_part_the_previous_checkpoint_is_used(runs, capsys):
    shutil.copytree(runs / 'fsdp2_full', runs / 'torn')
    (runs / 'torn' / 'iter_8.pth' / 'part_00001_of_00002.pth').unlink()
    with pytest.raises(CheckpointError, match=r'iter_8.pth is incomplete: part_00001_of_00002.pth is missing'):
        checkpoint_io.load(runs / 'torn' / 'iter_8.pth')
    alone(runs, 'torn', 'full', True)  # 2 processes under fsdp2 -> 1
    assert 'part_00001_of_00002.pth is missing' in ''.join(capsys.readouterr())
    assert losses(runs / 'torn') == pytest.approx(losses(runs / 'fsdp2_full'), rel=1e-5)
    assert checkpoint_io.load(runs / 'torn' / 'iter_8.pth')['meta']['iter'] == 8
