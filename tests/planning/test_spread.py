"""What devices need under every strategy: against measured peaks, and what is advised."""

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
from xtune.config.wire import wire
from xtune.errors import ModelError
from xtune.parallel.compatibility import STRATEGIES
from xtune.planning import fit_check
from xtune.planning.optimizer_state import paged_bytes, state_bytes_each
from xtune.planning.planner import GIB, Planner
from xtune.planning.published_configs import shipped_config
from xtune.planning.report import Card, make_plan
from xtune.planning.sharding import parts_of, sharded_peak
from xtune.planning.show import show
from xtune.planning.spread import Cluster, Need, best_of, needs

MEASURED = Path(__file__).parents[2] / 'tools' / 'devices' / 'layers_70b.json'
PAGED = 'bitsandbytes.optim.PagedAdamW8bit'
QUICK = {
    'speed.compile': False,
    'activation_checkpointing': 'all',
    'schedule.batch_size': 1,
    'max_length': 64,
    'pack': False,
}


@cache
def parts_70b(method, layers):
    """Return the sizes of a 70B model of so many layers with adapters of rank 16: linear in the layers."""
    if layers > 2:
        one, two = parts_70b(method, 1), parts_70b(method, 2)
        grown = {key: getattr(one, key) + (layers - 1) * (getattr(two, key) - getattr(one, key)) for key in GROWING}
        return replace(one, layers=layers, **grown)
    path = find(f'llama3_70b_chat_{method}_alpaca_e1')
    rank = {} if method == 'full' else {'lora.r': 16}
    job = wire(load(path, rank), path.stem)
    config = shipped_config('llama3_70b_chat', job.values.base_model)
    config.num_hidden_layers = layers
    return parts_of(job, config)


GROWING = ('frozen', 'in_layers', 'trained')


@pytest.mark.parametrize('one', json.loads(MEASURED.read_text('utf-8'))['peaks'], ids=lambda one: str(one['layers']))
def test_the_formula_agrees_with_the_peaks_that_were_measured(one):
    found = sharded_peak(parts_70b(one['method'], one['layers']), 2, one['strategy'].endswith('_offload'))
    assert found / GIB == pytest.approx(one['gib'], rel=0.04)


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
def test_a_70b_model_fits_where_its_shards_do(method, gpus, gb, fitting):
    peaks = {name: sharded_peak(parts_70b(method, 80), gpus, 'off' in name) for name in ('fsdp2', 'fsdp2_offload')}
    assert [name for name, peak in peaks.items() if Need(name, peak + GIB, 0).fits(gb)] == fitting


@pytest.mark.parametrize(
    ('optimizer', 'bytes_each'),
    [('torch.optim.AdamW', 8), ('torch.optim.SGD', 0), (PAGED, 2), ('bitsandbytes.optim.PagedAdamW32bit', 8)]
    + [('bitsandbytes.optim.AdamW8bit', 2), ('bitsandbytes.optim.Lion8bit', 1), ('torch.optim.Adagrad', 4)],
)
def test_the_state_of_every_optimizer_counts(job, optimizer, bytes_each):
    plain = {} if 'Adam' in optimizer else {'optimizer.betas': None}
    options = {'type': optimizer, 'lr': 1e-3} if plain else {'type': optimizer, 'lr': 1e-3, 'betas': (0.9, 0.999)}
    assert state_bytes_each(job(optimizer=options)) == pytest.approx(bytes_each, rel=0.03)


def test_paged_state_counts_in_the_plan_and_in_the_checkpoint(job, shape):
    base, found = shape(hidden_size=256, num_hidden_layers=1), {}
    for name in (PAGED, 'bitsandbytes.optim.AdamW8bit', 'torch.optim.AdamW'):
        made = job(base_model=base, **QUICK, **{'lora.r': 128, 'optimizer.type': name})
        found[name] = plan = make_plan(made, (), None)
        disk, each = plan.disk(), 2 if '8bit' in name else 8
        assert plan.best.optimizer == pytest.approx(each * plan.size.trained, rel=0.1)
        assert disk['checkpoint'] == plan.best.optimizer + disk['adapter'] and disk['adapter'] > 0
    assert found[PAGED].best == found['bitsandbytes.optim.AdamW8bit'].best
    assert ['moves to host memory if the GPU is full' in shown(plan) for plan in found.values()] == [True, False, False]


def test_only_paged_optimizers_page(job):
    large, small = torch.nn.Parameter(torch.zeros(400, 400)), torch.nn.Parameter(torch.zeros(400))
    assert paged_bytes(job(**{'optimizer.type': PAGED}), [large, small]) == pytest.approx(2 * 160_000, rel=0.03)
    assert paged_bytes(job(**{'optimizer.type': 'bitsandbytes.optim.AdamW8bit'}), [large]) == 0
    assert paged_bytes(job(), [large]) == 0


def shown(plan):
    """Return what a plan prints, on one line."""
    console = Console(file=StringIO(), width=200)
    show(plan, console)
    return ' '.join(console.file.getvalue().split())


def planned(planner, gpus, hosts=1):
    return {need.strategy: need for need in needs(planner, Cluster(gpus, hosts))}


def test_more_devices_need_less_where_something_is_sharded(job, shape):
    made = Planner(job('full', base_model=shape(hidden_size=512, num_hidden_layers=1), **QUICK))
    two, eight = planned(made, 2), planned(made, 8)
    assert list(two) == list(STRATEGIES) and not any(need.refused for name, need in two.items() if name != 'one_device')
    for name in STRATEGIES:
        if name in ('one_device', 'ddp'):
            assert eight[name].device == two[name].device
        elif not name.endswith('_offload'):
            assert eight[name].device < two[name].device
        else:
            assert eight[name].device < eight[name.removesuffix('_offload')].device or 'zero2' not in name
    assert eight['zero2'].device < eight['zero1'].device < eight['ddp'].device + 4 * 500_000_000
    assert planned(made, 8, 2)['fsdp2_offload'].host < eight['fsdp2_offload'].host


def test_what_cannot_be_run_is_refused_and_not_advised(job, shape):
    found = planned(Planner(job('qlora', base_model=shape(num_hidden_layers=1), **QUICK)), 2)
    assert {name for name, need in found.items() if need.refused} == {'zero3', 'zero3_offload'}
    assert not found['zero3'].fits(10_000)
    large = tuple(replace(need, device=100 * GIB) if need.strategy != 'zero3' else need for need in found.values())
    assert best_of(large, 80) is None and best_of(tuple(found.values()), 80).strategy == 'ddp'


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['--gpus', '2', '--strategy', 'fsdp2'], '2 x 80 GB: ddp is the fastest that fits (fsdp2, as given, fits too)'),
        (
            ['--gpus', '16'],
            'ddp is the fastest that fits, as given: NPROC_PER_NODE=8 NNODES=2 NODE_RANK=... ADDR=',
        ),
    ],
)
def test_the_command_names_a_strategy_that_fits(make_config, xtune, shape, options, said):
    config = make_config(base_model=shape(num_hidden_layers=1), **QUICK)
    code, out, err = xtune('plan', config, '--memory', '80', *options)
    assert code == 0, err
    text = ' '.join(out.split())
    assert said in text and text.count('fits') > 5
    for name in STRATEGIES:
        assert name in text


@pytest.mark.parametrize('strategy', ['fsdp2', 'fsdp2_offload', 'zero3'])
def test_the_strategy_that_was_given_is_not_advised(job, shape, strategy):
    made = job('full', base_model=shape(num_hidden_layers=1), **QUICK, **{'strategy.name': strategy})
    plan = make_plan(made, (0.1,), None, cluster=Cluster(2, 1))
    alone = replace(plan, cluster=None, cards=(Card(0.1, False, None, None, None),))
    for one, said in ((plan, 'no strategy fits'), (alone, 'nothing tried fits')):
        assert said in shown(one) and f'--strategy {strategy}' not in shown(one)


def test_a_run_that_is_refused_is_not_told_to_take_its_own_strategy(job, shape):
    for strategy, advised in (('fsdp2', False), ('ddp', True)):
        made = job('full', base_model=shape(), **{'strategy.name': strategy})
        least = fit_check.floor(made, torch.bfloat16)
        with pytest.raises(ModelError, match='over several GPUs .NPROC_PER_NODE=2') as refused:
            fit_check.check(made, least, 1, 'a GPU')
        assert ('--strategy fsdp2' in str(refused.value)) == advised


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['--hosts', '2'], '--hosts 2 needs --gpus N'),
        (['--gpus', '3', '--hosts', '2'], '3 GPUs cannot be evenly on 2 hosts; give --gpus 4'),
        (['--gpus', '0'], 'give a whole number of at least 1, got 0'),
        (['--gpus', 'two'], 'give a whole number of at least 1, got two'),
    ],
)
def test_machines_that_cannot_be_are_refused(make_config, xtune, options, said):
    code, _, err = xtune('plan', make_config(), *options)
    assert code == 2 and said in err
