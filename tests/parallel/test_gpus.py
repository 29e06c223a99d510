"""Two GPUs have the losses of one. Run with `-m gpu` on a machine with two GPUs."""

import importlib.util
import sys

import pytest
import torch
from pairs import case, run_pair

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason='needs two CUDA devices'),
]
NO_DEEPSPEED = pytest.mark.skipif(importlib.util.find_spec('deepspeed') is None, reason='needs DeepSpeed')
STEPS = 8
# name -> method, strategy, sequence-parallel group size
NATIVE = {
    'lora_ddp': ('lora', 'ddp', 1),
    'full_fsdp2': ('full', 'fsdp2', 1),
    'qlora_fsdp2': ('qlora', 'fsdp2', 1),
    'lora_sequence_parallel': ('lora', 'ddp', 2),
}
ZERO = {'lora_zero2': ('lora', 'zero2', 1), 'full_zero3': ('full', 'zero3', 1)}
# In bf16 with all options of section `speed`, like the default.
BF16 = 'lora_ddp_bf16'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('gpus')


@pytest.fixture(scope='module')
def write_run(folder, byte_model, write_config):
    """Return a function that writes the config of a run."""
    from xtune.config.strategies import deepspeed_strategy

    def write(name, method, strategy, group_size=1, size=2, precision='fp32'):
        chosen = deepspeed_strategy(strategy) if strategy.startswith('zero') else dict(name=strategy, deepspeed=None)
        options = {
            'base_model': str(byte_model),
            'strategy': {**chosen, 'sequence_parallel_size': group_size},
            'precision': precision,
            'speed.compile': precision == 'bf16',
            'val_dataset': 5,
            'pack': True,
            'optimizer.lr': 2e-3,
            'schedule.max_steps': STEPS,
            'schedule.gradient_accumulation_steps': 4 * group_size // size,
            'validation.every_steps': 3,
            'checkpoint.every_steps': None,
            'checkpoint.every_epochs': None,
        }
        options |= {} if method == 'full' else {'lora.lora_dropout': 0.0}  # each rank has its own dropout
        return write_config(folder, name, method, **options)

    return write


@pytest.fixture(scope='module')
def single_gpu_metrics(folder, write_run, figures):
    """Return a function that returns the metrics of a run on one GPU; each run is cached."""
    from xtune.config.run_config import RunConfig
    from xtune.engine.train import train

    known = {}

    def run(method, precision='fp32'):
        if (method, precision) not in known:
            name = f'{method}_single_{precision}'
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv('XTUNE_CACHE', str(folder / 'cache'))
                config = RunConfig.read(write_run(name, method, 'one_device', size=1, precision=precision))
                assert train(config) == 0
            known[method, precision] = figures(folder / name)
        return known[method, precision]

    return run


def pair_of(folder, write_run, cases):
    made = [case(write_run(name, *given)) for name, given in cases.items()]
    reports = run_pair(folder / f'pair_{next(iter(cases))}', made, timeout=280)
    assert not [report['error'] for rank in reports for report in rank if report['error']]


@pytest.fixture(scope='module')
def native(folder, write_run):
    """Two processes that ran the cases of NATIVE and BF16, one after another."""
    pair_of(folder, write_run, {**NATIVE, BF16: ('lora', 'ddp', 1, 2, 'bf16')})


@pytest.fixture(scope='module')
def zero(folder, write_run):
    """Two processes that ran the cases of ZERO."""
    pair_of(folder, write_run, ZERO)


def same(two, one, rel):
    assert {step for step, _ in one} == set(range(1, STEPS + 1)) and any(key == 'val_loss' for _, key in one)
    assert two == pytest.approx(one, rel=rel)


# Tests of one group run in one process of pytest-xdist, so that its fixture runs once.
@pytest.mark.xdist_group('native')
@pytest.mark.usefixtures('native')
@pytest.mark.parametrize('name', NATIVE)
def test_two_gpus_have_the_losses_of_one(name, folder, single_gpu_metrics, figures):
    same(figures(folder / name), single_gpu_metrics(NATIVE[name][0]), rel=1e-3)


@NO_DEEPSPEED
@pytest.mark.xdist_group('zero')
@pytest.mark.usefixtures('zero')
@pytest.mark.parametrize('name', ZERO)
def test_two_gpus_have_the_losses_of_one_with_deepspeed(name, folder, single_gpu_metrics, figures):
    same(figures(folder / name), single_gpu_metrics(ZERO[name][0]), rel=1e-3)


@pytest.mark.xdist_group('native')
@pytest.mark.usefixtures('native')
def test_two_gpus_have_the_losses_of_one_in_bf16(folder, single_gpu_metrics, figures):
    losses = [
        {key: value for key, value in found.items() if 'loss' in key[1]}
        for found in (figures(folder / BF16), single_gpu_metrics('lora', 'bf16'))
    ]
    same(*losses, rel=5e-3)


def test_the_command_starts_one_rank_per_gpu(folder, write_run, start, figures):
    config = write_run('started', 'lora', 'ddp')
    run = start([sys.executable, '-m', 'xtune', 'train', config], folder, 'command', NPROC_PER_NODE='2')
    assert run.exit(180) == 0, run.output
    assert '2 ranks' in run.output and figures(folder / 'started')
