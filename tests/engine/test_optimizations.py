"""Optimizations do not change the metrics of a run."""

import json

import pytest
import torch

from xtune.config.load import load
from xtune.config.wire import wire
from xtune.data.batches import PAD_TO_LONGEST, Padding
from xtune.engine.optimizations import compiles, padding

FEW = {
    'schedule.max_steps': 3,
    'val_dataset': 6,
    'chat_samples.every_steps': 2,
    'chat_samples.max_new_tokens': 4,
    'lora.lora_dropout': 0.0,
    'checkpoint.every_steps': None,
    'checkpoint.every_epochs': None,
    'log.plot': False,
    'log.tensorboard': False,
}


def metrics(work_dir):
    rows = [json.loads(line) for line in (work_dir / 'metrics.jsonl').read_text().splitlines()]
    return [row[name] for row in rows for name in ('loss', 'grad_norm', 'val_loss') if name in row]


def test_varlen_attention_has_the_losses_of_masked_attention(make_config, xtune, tmp_path):
    for name, options in (
        ('on', {}),
        ('off', {'speed.varlen_attention': False}),
        ('eager', {'llm.attn_implementation': 'eager'}),
    ):
        code, out, err = xtune('train', make_config('lora', name, **FEW, **options))
        assert code == 0, err
        assert ('varlen attention' in out) == (name == 'on')
    on, off, eager = (metrics(tmp_path / name) for name in ('on', 'off', 'eager'))
    assert len(on) == 8 and on == pytest.approx(off, rel=1e-4) and on == pytest.approx(eager, rel=1e-4)
    answers = [(tmp_path / name / 'chat_samples.jsonl').read_text() for name in ('on', 'off')]
    assert answers[0] == answers[1] != ''


def test_failed_parity_check_is_reported(make_config, xtune, monkeypatch):
    from xtune.optimizations.attention_parity import AttentionParity

    note = 'parity check'
    monkeypatch.setattr(AttentionParity, 'allclose', lambda *_: False)
    for options, expected in (
        ({}, True),
        ({'speed.varlen_attention': False}, False),
        ({'llm.attn_implementation': 'eager'}, False),
        ({'pack': False}, False),
    ):
        code, out, err = xtune('train', make_config('lora', **{**FEW, 'schedule.max_steps': 1, **options}))
        assert code == 0, err
        assert (note in out) == expected and 'varlen attention' not in out.replace('varlen attention off', ''), options


@pytest.mark.parametrize(
    ('pack', 'compiled', 'expected'),
    [
        (True, True, Padding(min_length=128, with_positions=True)),
        ('stream', True, Padding(min_length=128)),
        (False, True, Padding(multiple=64)),
        (True, False, PAD_TO_LONGEST),
    ],
)
def test_only_compiled_layers_get_padded_sequence_lengths(pack, compiled, expected, make_config):
    job = wire(load(make_config(pack=pack), {}), 'run')
    assert padding(job.values.packing, job.values.max_length, compiled) == expected


def test_layers_are_not_compiled_on_a_cpu(make_config):
    assert not compiles(wire(load(make_config(), {}), 'run').step, torch.device('cpu'), 1)
