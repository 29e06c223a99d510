"""tools/float8_check.py: its configs, its comparison and its errors. The runs need a GPU."""

import sys

import pytest
import torch


@pytest.fixture(scope='module')
def tool(tool):
    """The module."""
    return tool('float8_check')


def test_gradients_of_the_first_step_are_similar_to_those_on_bf16(tool, tiny_model, tmp_path):
    args = tool.parse_arguments([str(tiny_model), '--out', str(tmp_path), '--set', 'max_length=32', 'data.num_proc=1'])
    options = tool.shared_options(args) | {'train_dataset.limit': 2, 'schedule.batch_size': 2}
    gradients = [tool.first_gradients(tool.wire_job(base, options), torch.device('cpu')) for base in tool.METHODS]
    assert gradients[0].norm() > 0 and not torch.equal(*gradients)
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.99


def test_curves_are_smoothed_before_they_are_compared(tool):
    curve = [10.0, 8.0] * 10
    assert tool.curve_differences(curve, curve) == (0, 0)
    assert tool.curve_differences(curve, [8.0, 10.0] * 10) == pytest.approx((0, 0))
    largest, average = tool.curve_differences([4.0] * 20, [4.0] * 10 + [4.4] * 10)
    assert largest == pytest.approx(0.1) and average == pytest.approx(0.05)
    with pytest.raises(ValueError, match='9 steps'):
        tool.curve_differences([1.0] * 9, [1.0] * 9)
    with pytest.raises(ValueError, match='20 and 40 steps'):
        tool.curve_differences([1.0] * 20, [1.0] * 40)


def test_too_few_steps_are_refused_before_training(tool, capsys):
    with pytest.raises(SystemExit):
        tool.parse_arguments(['model', '--steps', '9'])
    assert '--steps 9: ' in capsys.readouterr().err


def test_help_explains_every_argument(tool, capsys):
    with pytest.raises(SystemExit):
        tool.parse_arguments(['--help'])
    text = ' '.join(capsys.readouterr().out.split())
    for word in ('MODEL_FOLDER folder', 'at least 10', 'rows with `text` (default', '--cfg-options'):
        assert word in text, word


def test_unknown_options_are_refused_before_a_run(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, 'device_problem', lambda device: None)
    monkeypatch.setattr(sys, 'argv', ['float8_check.py', 'model', '--out', str(tmp_path), '--set', 'sped.compile=1'])
    with pytest.raises(SystemExit) as stopped:
        tool.main()
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and message.startswith('error: ') and 'speed' in message


def test_a_machine_without_a_gpu_is_refused(tool, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(sys, 'argv', ['float8_check.py', 'model'])
    with pytest.raises(SystemExit) as stopped:
        tool.main()
    assert stopped.value.code == 2 and 'error: this tool needs a CUDA GPU' in capsys.readouterr().err
