"""Optimizers that cannot train are refused before data are read; those in the docs train and resume exactly."""

import ast
import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from bitsandbytes.optim import AdamW8bit

from xtune.config.load import load
from xtune.config.strategy_traits import traits_of
from xtune.config.wire import wire
from xtune.engine.optimizer_checks import check_optimizer
from xtune.errors import ConfigError

PAGE = Path(__file__).parents[2] / 'docs' / 'en' / 'optimizers.md'
CPU = torch.device('cpu')


def documented():
    """Return the arguments of each `optimizer = dict(...)` in the docs."""
    lines = re.findall(r'^optimizer = (dict\(.*\))$', PAGE.read_text(encoding='utf-8'), re.MULTILINE)
    return [{k.arg: ast.literal_eval(k.value) for k in ast.parse(line).body[0].value.keywords} for line in lines]


def check(job):
    check_optimizer(job.optimizer, job.lora is not None, traits_of(job.strategy.name, 1), CPU)


@pytest.fixture
def job(make_config):
    """Return a function that wires a run with an optimizer."""
    return lambda method='lora', **optimizer: wire(load(make_config(method, optimizer=optimizer), check_types=True))


@pytest.mark.parametrize('section', documented(), ids=lambda section: section['type'])
def test_every_optimizer_of_the_docs_passes_or_is_paged(section, job):
    if 'Paged' in section['type']:
        with pytest.raises(ConfigError, match='no GPU.*AdamW8bit.*torch.optim.AdamW'):
            check(job(**section))
    else:
        check(job('full', **section))


@pytest.mark.parametrize(
    ('section', 'message'),
    [
        (dict(type='bitsandbytes.optim.PagedLion8bit', lr=1e-4), 'PagedLion8bit'),
        (dict(type='bitsandbytes.optim.AdamW8bit', lr=1e-4, is_paged=True), 'AdamW8bit'),
        (dict(type='torch.optim.LBFGS', lr=1.0), "LBFGS .*CPU: .*'closure'; .*AdamW"),
        (dict(type='torch.optim.SparseAdam', lr=1e-4), 'SparseAdam .*dense'),
        (dict(type='torch.optim.Adam', lr=1e-4, capturable=True), 'leave out optimizer.capturable'),
        (dict(type='transformers.Adafactor'), 'optimizer.lr .*optimizer.relative_step=False'),
    ],
)
def test_optimizers_that_cannot_train_are_refused(section, message, job):
    with pytest.raises(ConfigError, match=message):
        check(job(**section))


def test_kernel_missing_in_bitsandbytes_is_refused(job):
    sizes = []

    class WithoutKernel(AdamW8bit):
        def step(self, closure=None):
            sizes.extend(p.numel() for group in self.param_groups for p in group['params'])
            raise RuntimeError("Could not run 'bitsandbytes::optimizer_update_8bit_blockwise' with arguments from CPU")

    one = replace(job(type='torch.optim.AdamW'), optimizer=partial(WithoutKernel, lr=1e-4))
    with pytest.raises(ConfigError, match='WithoutKernel .*CPU: Could not run.*optimizer.type'):
        check(one)
    assert max(sizes) >= 100_000  # what bitsandbytes pages


@pytest.mark.parametrize('command', [['train'], ['check-custom-dataset']])
def test_missing_package_is_named_before_data_are_read(command, make_config, xtune):
    config = make_config(**{'train_dataset.path': '/no/such'})
    for name in ('apex_is_not_here.optimizers.FusedAdam', 'torch.optim.no_such_module.Adam'):
        code, _, err = xtune(*command, config, '--cfg-options', f'optimizer.type={name}', 'lora.r=0')
        assert code == 2 and name.split('.')[-2] in err and '`lora.r`' in err and 'torch.optim.AdamW' in err, err


@pytest.mark.slow
def test_8bit_optimizer_resumes_bit_exactly(make_config, xtune, tmp_path):
    def losses(folder):
        rows = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
        return {row['step']: row['loss'] for row in rows if 'loss' in row}

    options = {'optimizer.type': 'bitsandbytes.optim.AdamW8bit', 'optimizer.lr': 1e-3, 'checkpoint.keep': None}
    config = make_config('full', **options)
    assert xtune('train', config)[0] == 0
    first = losses(tmp_path / 'run')
    assert len(first) > 2
    code, out, err = xtune('train', config, '--resume', tmp_path / 'run' / 'epoch_1.pth')
    assert code == 0 and losses(tmp_path / 'run') == first, out + err
