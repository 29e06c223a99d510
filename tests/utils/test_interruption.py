"""Ctrl-C and SIGTERM before and during a run (in a process of its own: test_train.py); no empty folders are left."""

import os
import re
import signal
import time

import pytest

from xtune.engine.log_folders import without_empty_folders

LONG = {'schedule.max_epochs': 5000, 'checkpoint.every_epochs': None, 'checkpoint.every_steps': None}


def dated(folder):
    return [path for path in folder.iterdir() if re.fullmatch(r'\d{8}_\d{6}', path.name)]


@pytest.fixture(autouse=True)
def interruptible():
    """Ctrl-C interrupts, also where the shell has started the tests in the background and so ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ('number', 'place'),
    [
        (signal.SIGINT, 'xtune.engine.train.build_run_data'),
        (signal.SIGINT, 'xtune.engine.runner.TuneRunner.train'),
        (signal.SIGTERM, 'xtune.engine.trainer.Trainer.train_step'),
    ],
)
def test_before_the_first_step_there_is_nothing_to_save(number, place, make_config, xtune, tmp_path, monkeypatch):
    monkeypatch.setattr(place, lambda *_, **__: os.kill(os.getpid(), number) or time.sleep(10))
    code, out, err = xtune('train', make_config(**LONG))
    assert code == 130 and 'nothing' in err and 'Traceback' not in err, out + err
    assert not (tmp_path / 'run').exists() or not dated(tmp_path / 'run')


def test_a_second_interrupt_quits_without_saving(make_config, xtune, tmp_path, monkeypatch):
    from xtune.engine.trainer import Trainer

    real, calls = Trainer.train_step, []

    def step(self, *args, **kwargs):
        calls.append(1)
        for _ in range(2 if len(calls) == 2 else 0):
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, 'train_step', step)
    code, _, err = xtune('train', make_config(**LONG))
    assert code == 130 and 'exited without saving' in err and not list((tmp_path / 'run').glob('*.pth')), err


def test_runs_without_output_leave_no_folder(make_config, xtune, tmp_path):
    run = tmp_path / 'run'
    killed = run / '20260101_000000'
    (killed / 'vis_data').mkdir(parents=True)
    (killed / f'{killed.name}.log').touch()
    config = make_config(**{'schedule.max_epochs': 1, 'log.tensorboard': False, 'checkpoint.every_steps': None})
    assert xtune('train', config)[0] == 0 and not dated(run)
    assert xtune('train', config, '--resume', '--cfg-options', 'log.tensorboard=True')[0] == 0  # no step is left
    assert not dated(run)


def test_folders_with_content_are_kept(tmp_path):
    files = {'20260101_000000': '20260101_000000.log', '20260101_000001': 'vis_data/x', 'mine': 'vis_data/../y'}
    for name, file in files.items():
        (tmp_path / name / 'vis_data').mkdir(parents=True)
        (tmp_path / name / file).write_text('a figure')
    (tmp_path / '20260101_000002').mkdir()
    before = sorted(tmp_path.rglob('*'))
    with without_empty_folders(tmp_path, removes=False):
        pass
    assert sorted(tmp_path.rglob('*')) == before
    with without_empty_folders(tmp_path):
        pass
    assert {p.name for p in tmp_path.iterdir()} == set(files)
    assert (tmp_path / '20260101_000001' / 'vis_data' / 'x').exists()
