"""The memory of devices under every strategy: against measured peaks, and the suggested strategy."""

import json
from dataclasses import replace
from functools import cache
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from xtune.config.load import load
from xtune.config.presets import find
from xtune.config.sections import Checkpoint
from xtune.config.wire import wire
from xtune.parallel.compatibility import STRATEGIES
from xtune.planning.estimator import MemoryEstimator
from xtune.planning.make_plan import make_plan
from xtune.planning.memory_plan import GpuFit
from xtune.planning.optimizer_state import is_paged, paged_state_bytes
from xtune.planning.sharding import sharded_peak
from xtune.planning.show import show
from xtune.planning.step_builder import StepBuilder
from xtune.planning.strategies import Cluster, StrategyMemory, fastest_fit, memory_of_strategies
from xtune.planning.units import GIB

MEASURED = Path(__file__).parents[2] / 'tools' / 'device_benchmark' / 'layers_70b.json'
PAGED = 'bitsandbytes.optim.PagedAdamW8bit'
QUICK = {'activation_checkpointing': 'all', 'schedule.batch_size': 1, 'max_length': 32}
GROWING = ('frozen', 'in_layers', 'trained')


@cache
def sizes_of_70b(method, layers):
    """Return the sizes of a 70B model with `layers` layers and adapters of rank 16: they grow linearly with layers."""
    if layers > 2:
        one, two = sizes_of_70b(method, 1), sizes_of_70b(method, 2)
        grown = {key: getattr(one, key) + (layers - 1) * (getattr(two, key) - getattr(one, key)) for key in GROWING}
        return replace(one, layers=layers, **grown)
    path = find(f'llama3_70b_chat_{method}_alpaca_e1')
    options = {} if method == 'full' else {'lora.r': 16}
    estimator = MemoryEstimator(wire(load(path, options), path.stem).step)
    estimator.config.num_hidden_layers = layers
    return estimator.sharded_sizes()


@pytest.mark.parametrize('case', json.loads(MEASURED.read_text('utf-8'))['peaks'], ids=lambda case: str(case['layers']))
def test_the_formula_agrees_with_measured_peaks(case):
    peak = sharded_peak(sizes_of_70b(case['method'], case['layers']), 2, case['strategy'].endswith('_offload'))
    assert peak / GIB == pytest.approx(case['gib'], rel=0.04)


@pytest.mark.parametrize(
    ('method', 'gpus', 'gb', 'fitting'),
    [
        ('qlora', 2, 40, ['fsdp2', 'fsdp2_offload']),
        ('qlora', 4, 24, ['fsdp2', 'fsdp2_offload']),
        ('lora', 4, 24, ['fsdp2_offload']),
        ('lora', 8, 80, ['fsdp2', 'fsdp2_offload']),
        ('full', 16, 80, ['fsdp2_offload']),
    ],
)
def test_a_70b_model_fits_if_its_shards_fit(method, gpus, gb, fitting):
    peaks = {name: sharded_peak(sizes_of_70b(method, 80), gpus, 'off' in name) for name in ('fsdp2', 'fsdp2_offload')}
    assert [name for name, peak in peaks.items() if StrategyMemory(name, peak + GIB, 0).fits(gb)] == fitting


@pytest.mark.parametrize(
    ('optimizer', 'bytes_each'),
    [('torch.optim.AdamW', 8), ('torch.optim.SGD', 0), (PAGED, 2), ('bitsandbytes.optim.PagedAdamW32bit', 8)]
    + [('bitsandbytes.optim.AdamW8bit', 2), ('bitsandbytes.optim.Lion8bit', 1), ('torch.optim.Adagrad', 4)],
)
def test_the_state_of_every_optimizer_counts(job, optimizer, bytes_each):
    plain = {} if 'Adam' in optimizer else {'optimizer.betas': None}
    options = {'type': optimizer, 'lr': 1e-3} if plain else {'type': optimizer, 'lr': 1e-3, 'betas': (0.9, 0.999)}
    builder = StepBuilder(job(optimizer=options), None, torch.bfloat16)
    assert builder.optimizer_bytes_per_parameter() == pytest.approx(bytes_each, rel=0.03)


def test_paged_state_counts_in_the_plan_and_in_the_checkpoint(job, model_folder):
    base, plans = model_folder(hidden_size=256, vocab_size=500), {}
    for name in (PAGED, 'bitsandbytes.optim.AdamW8bit', 'torch.optim.AdamW'):
        options = QUICK | {'lora.r': 128, 'optimizer.type': name, 'lora.target_modules': ['q_proj', 'o_proj']}
        plans[name] = plan = make_plan(job(base_model=base, **options), Checkpoint(), (), None)
        disk, bytes_each = plan.disk(), 2 if '8bit' in name else 8
        assert plan.best.optimizer == pytest.approx(bytes_each * plan.sizes.trained, rel=0.1)
        assert disk['checkpoint'] == plan.best.optimizer + disk['adapter'] and disk['adapter'] > 0
    assert plans[PAGED].best == plans['bitsandbytes.optim.AdamW8bit'].best
    assert ['host memory' in printed(plan) for plan in plans.values()] == [True, False, False]


def test_only_large_tensors_of_paged_optimizers_are_paged(job):
    large, small = torch.nn.Parameter(torch.zeros(400, 400)), torch.nn.Parameter(torch.zeros(400))
    assert paged_state_bytes(2.0, [large, small]) == 2 * 160_000
    names = (PAGED, 'bitsandbytes.optim.AdamW8bit', 'torch.optim.AdamW')
    assert [is_paged(job(**{'optimizer.type': name}).optimizer) for name in names] == [True, False, False]


def printed(plan):
    """Return the tables of a plan on one line."""
    console = Console(file=StringIO(), width=200)
    show(plan, console)
    return ' '.join(console.file.getvalue().split())


def by_strategy(estimator, gpus, hosts=1):
    return {memory.strategy: memory for memory in memory_of_strategies(estimator, Cluster(gpus, hosts))}


def test_more_devices_need_less_memory_with_sharding(job, model_folder):
    estimator = MemoryEstimator(job('full', base_model=model_folder(), **QUICK))
    two, eight = by_strategy(estimator, 2), by_strategy(estimator, 8)
    assert list(two) == list(STRATEGIES)
    assert not any(memory.refused for name, memory in two.items() if name != 'one_device')
    for name in STRATEGIES:
        if name in ('one_device', 'ddp'):
            assert eight[name].device == two[name].device
        elif not name.endswith('_offload'):
            assert eight[name].device < two[name].device
        else:
            assert eight[name].device < eight[name.removesuffix('_offload')].device or 'zero2' not in name
    assert eight['zero2'].device < eight['zero1'].device < eight['ddp'].device + 4 * 500_000_000
    assert by_strategy(estimator, 8, 2)['fsdp2_offload'].host < eight['fsdp2_offload'].host


def test_a_strategy_that_refuses_the_method_is_not_suggested(job, model_folder):
    table = by_strategy(
        MemoryEstimator(job('qlora', base_model=model_folder(), **QUICK, **{'lora.target_modules': ['q_proj']})), 2
    )
    assert {name for name, memory in table.items() if memory.refused} == {'zero3', 'zero3_offload'}
    assert not table['zero3'].fits(10_000)
    large = tuple(replace(one, device=100 * GIB) if one.strategy != 'zero3' else one for one in table.values())
    assert fastest_fit(large, 80) is None and fastest_fit(tuple(table.values()), 80).strategy == 'ddp'


@pytest.mark.parametrize(
    ('options', 'verdict'),
    [
        (['--gpus', '2', '--strategy', 'fsdp2'], '2 x 80 GB: ddp '),
        (
            ['--gpus', '16'],
            ': NPROC_PER_NODE=8 NNODES=2 NODE_RANK=... ADDR=',
        ),
    ],
)
def test_the_command_names_a_strategy_that_fits(make_config, xtune, model_folder, options, verdict):
    config = make_config('full', base_model=model_folder(), **QUICK)
    code, out, err = xtune('plan', config, '--memory', '80', *options)
    assert code == 0, err
    text = ' '.join(out.split())
    assert verdict in text and all(name in text for name in STRATEGIES)


def test_the_strategy_of_the_config_is_not_suggested(job, model_folder):
    run = job('full', base_model=model_folder(), **QUICK)
    plan = make_plan(run, Checkpoint(), (0.1,), None, cluster=Cluster(2, 1))
    for name in ('fsdp2', 'fsdp2_offload', 'zero3'):
        on_cluster = replace(plan, step=replace(run, strategy=replace(run.strategy, name=name)))
        assert 'no strategy fits' in printed(on_cluster) and f'--strategy {name}' not in printed(on_cluster)
        if name != 'zero3':
            alone = replace(on_cluster, cluster=None, gpu_fits=(GpuFit(0.1, False, None, None, None),))
            assert '--gpus N' in printed(alone) and f'--strategy {name}' not in printed(alone)


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        (['--hosts', '2'], '--gpus N'),
        (['--gpus', '3', '--hosts', '2'], '--gpus 4'),
        (['--gpus', '0'], 'got 0'),
        (['--gpus', 'two'], 'got two'),
    ],
)
def test_impossible_clusters_are_refused(make_config, xtune, options, named):
    code, _, err = xtune('plan', make_config(), *options)
    assert code == 2 and named in err
