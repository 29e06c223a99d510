"""tools/float8_check.py: its configs load, and its figures are those of the two bases. The runs need a GPU."""

import sys

import pytest
import torch


@pytest.fixture(scope='module')
def tool(tool):
    """The module."""
    return tool('float8_check')


def test_gradients_of_the_first_step_are_nearly_those_on_bf16(tool, tiny_model, tmp_path):
    args = tool.arguments([str(tiny_model), '--out', str(tmp_path), '--set', 'max_length=32', 'data.num_proc=1'])
    changed = tool.options(args) | {'train_dataset.limit': 2, 'schedule.batch_size': 2}
    found = [tool.first_gradients(tool.job_of(base, changed), torch.device('cpu')) for base in tool.METHODS]
    assert found[0].norm() > 0 and not torch.equal(*found)
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.99


def test_curves_are_compared_after_they_are_smoothed(tool):
    one = [10.0, 8.0] * 10
    assert tool.differences(one, one) == (0, 0)
    assert tool.differences(one, [8.0, 10.0] * 10) == pytest.approx((0, 0))
    largest, average = tool.differences([4.0] * 20, [4.0] * 10 + [4.4] * 10)
    assert largest == pytest.approx(0.1) and average == pytest.approx(0.05)
    with pytest.raises(ValueError, match='9 steps'):
        tool.differences([1.0] * 9, [1.0] * 9)
    with pytest.raises(ValueError, match='20 and 40 steps'):
        tool.differences([1.0] * 20, [1.0] * 40)


def test_too_few_steps_are_refused_before_they_are_trained(tool, capsys):
    with pytest.raises(SystemExit):
        tool.arguments(['model', '--steps', '9'])
    assert '--steps 9: ' in capsys.readouterr().err


def test_help_explains_every_argument(tool, capsys):
    with pytest.raises(SystemExit):
        tool.arguments(['--help'])
    said = ' '.join(capsys.readouterr().out.split())
    for word in ('MODEL_FOLDER folder', 'at least 10', 'rows with `text` (default', '--cfg-options'):
        assert word in said, word


def test_options_that_make_no_sense_are_named_before_a_run(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, 'device_problem', lambda device: None)
    monkeypatch.setattr(sys, 'argv', ['float8_check.py', 'model', '--out', str(tmp_path), '--set', 'sped.compile=1'])
    with pytest.raises(SystemExit) as stopped:
        tool.main()
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.startswith('error: ') and 'speed' in said


def test_without_a_gpu_it_says_what_it_needs(tool, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(sys, 'argv', ['float8_check.py', 'model'])
    with pytest.raises(SystemExit) as stopped:
        tool.main()
    assert stopped.value.code == 2 and 'error: this needs a CUDA GPU' in capsys.readouterr().err
