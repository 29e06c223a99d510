"""tools/slurm_train.sh with fake `srun` and `scontrol` commands, which record their arguments."""

import os
import subprocess
from pathlib import Path

import pytest

from xtune.cli import build_parser
from xtune.config.presets import find

SCRIPT = Path(__file__).parents[2] / 'tools' / 'slurm_train.sh'
FAKE = '#!/usr/bin/env bash\nprintf "%s\\n" "$@" > "$CALLS/$(basename "$0")"\nexit ${CODE:-0}\n'


@pytest.fixture
def job(tmp_path):
    """Return a function that runs the script; it returns the exit code and the arguments of each fake by name."""
    programs, calls = tmp_path / 'bin', tmp_path / 'calls'
    for name in ('srun', 'scontrol'):
        programs.mkdir(exist_ok=True)
        (programs / name).write_text(FAKE, encoding='utf-8')
        (programs / name).chmod(0o755)
    calls.mkdir()

    def run(*arguments, **variables):
        fakes = dict(PATH=f'{programs}{os.pathsep}{os.environ["PATH"]}', CALLS=str(calls), SLURM_JOB_ID='77')
        environment = {**os.environ, **fakes, 'SLURM_CPUS_PER_TASK': '8', **variables}
        done = subprocess.run(['bash', str(SCRIPT), *arguments], env=environment, cwd=tmp_path, capture_output=True)
        return done.returncode, {path.name: path.read_text('utf-8').splitlines() for path in calls.iterdir()}

    return run


def test_the_script_is_valid_bash():
    assert subprocess.run(['bash', '-n', str(SCRIPT)]).returncode == 0


def test_each_task_trains_the_config(job):
    code, calls = job('--strategy', 'fsdp2')
    assert code == 0 and set(calls) == {'srun'}
    at = calls['srun'].index('xtune')
    assert calls['srun'][:at] == ['--kill-on-bad-exit=1', '--cpus-per-task=8']
    parsed = build_parser().parse_args(calls['srun'][at + 1 :])
    assert (parsed.command, parsed.launcher, parsed.strategy, parsed.resume) == ('train', 'slurm', 'fsdp2', False)
    assert find(parsed.config).is_file() and parsed.work_dir == f'work_dirs/{parsed.config}'


def test_two_lines_are_marked_for_editing_and_there_is_one_task_per_gpu():
    lines = SCRIPT.read_text('utf-8').splitlines()
    edited = [line for line in lines if '# EDIT' in line]
    assert len(edited) == 2 and '--partition' in edited[0] and edited[1].startswith('CONFIG=')
    options = dict(
        line.split()[1].removeprefix('--').split('=') for line in lines if line.startswith('#SBATCH --') and '=' in line
    )
    assert options['gpus-per-node'] == options['ntasks-per-node']


@pytest.mark.parametrize(('restarts', 'saved', 'resumes'), [('0', True, False), ('1', False, False), ('1', True, True)])
def test_a_requeued_job_resumes_from_its_checkpoint(job, tmp_path, restarts, saved, resumes):
    if saved:
        (tmp_path / 'mine').mkdir()
        (tmp_path / 'mine' / 'last_checkpoint').write_text('iter_5.pth\n', encoding='utf-8')
    _, calls = job(CONFIG='mine.py', WORK_DIR='mine', SLURM_RESTART_COUNT=restarts)
    assert ('--resume' in calls['srun']) == resumes


def test_an_interrupted_run_is_requeued(job):
    code, calls = job(CODE='130')
    assert code == 130 and calls['scontrol'] == ['requeue', '77']


def test_a_failed_run_is_not_requeued(job):
    code, calls = job(CODE='2')
    assert code == 2 and 'scontrol' not in calls
