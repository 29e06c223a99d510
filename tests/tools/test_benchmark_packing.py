"""tools/benchmark_packing.py: a small run, and the conditions for an error."""

import math

import pytest


@pytest.fixture(scope='module')
def tool(tool):
    """The module."""
    return tool('benchmark_packing')


def test_masked_and_varlen_attention_have_the_same_loss(tool, capsys, monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    assert tool.main('--shape tiny --batch-size 1 --seq-len 64 --max-sample-length 32 --steps 2'.split()) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(('mask', 'varlen'))]
    assert [row[0] for row in rows] == ['mask', 'varlen'] and rows[0][-1] == rows[1][-1]
    assert all(float(row[2].replace(',', '')) > 0 for row in rows)


def test_different_and_non_finite_losses_are_detected(tool):
    assert not tool.differ([6.25, 6.26])
    assert tool.differ([6.25, 6.4]) and tool.differ([6.25, math.nan]) and tool.differ([math.nan] * 2)


@pytest.mark.parametrize('wrong', ['--batch-size 0', '--seq-len 7', '--max-sample-length 0', '--steps 1'])
def test_sizes_below_the_minimum_are_refused(tool, capsys, wrong):
    with pytest.raises(SystemExit) as stopped:
        tool.parse_arguments(wrong.split())
    assert stopped.value.code == 2 and f'{wrong}: give at least' in capsys.readouterr().err


def test_a_large_model_needs_a_gpu(tool, capsys, monkeypatch):
    monkeypatch.setattr('torch.cuda.device_count', lambda: 0)
    with pytest.raises(SystemExit) as stopped:
        tool.main([])
    assert stopped.value.code == 2 and 'add --shape tiny' in capsys.readouterr().err
