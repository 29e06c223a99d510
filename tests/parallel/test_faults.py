"""Ranks that are killed, hang, or cannot write: the errors, and that the resumed run is bit-exact."""

import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

STEPS, SAVE_EVERY = 12, 2


@pytest.fixture(scope='module')
def faults(tmp_path_factory, byte_model, write_config, in_processes, figures):
    """Return (folder, make, complete_run).

    `make(name, method, **fault)` writes a config. `complete_run(method, others)` runs it without a fault, and the cases
    `others`, and returns its metrics.
    """
    folder = tmp_path_factory.mktemp('faults')
    shutil.copy(Path(__file__).with_name('faulty.py'), folder / 'xtune_faulty_hook.py')

    def make(name, method='lora', timeout=60.0, background=False, **fault):
        options = {
            'base_model': str(byte_model),
            'schedule.max_steps': STEPS,
            'checkpoint.every_steps': SAVE_EVERY,
            'checkpoint.every_epochs': None,
            'checkpoint.background': background,
            'strategy.timeout': timeout,
        }
        if fault:
            options['custom_imports'] = ['xtune_faulty_hook']
            options['runner'] = {'custom_hooks': [dict(type='xtune.FaultyHook', **fault)]}
        return write_config(folder, name, method, **options)

    def complete_run(method, others=()):
        name = f'complete_{method}'
        finished = (folder / name).exists()
        cases = [] if finished else [dict(name=name, config=str(make(name, method)), size=2)]
        if cases or others:
            in_processes([*cases, *others], folder)
        return figures(folder / name)

    return folder, make, complete_run


@pytest.fixture
def train(start):
    """Return a function (config, *arguments) that starts `NPROC_PER_NODE=2 xtune train`."""

    def run(config, *arguments, **env):
        command = [sys.executable, '-m', 'xtune', 'train', config, *arguments]
        return start(command, config.parent, config.stem, NPROC_PER_NODE='2', **env)

    return run


@pytest.fixture
def check_resume(faults, figures):
    """Return a function that resumes the run `name` and compares it with the uninterrupted one."""
    folder, make, complete_run = faults

    def check(name, method='lora', lost_steps=SAVE_EVERY):
        saved = {int(p.stem.split('_')[1]) for p in (folder / name).glob('iter_*.pth')}
        before = figures(folder / name)
        assert max(saved) >= max(step for step, _ in before) - lost_steps
        make(name, method)  # the same run, without the fault
        resumed = dict(name=f'{name}_resumed', config=str(folder / f'{name}.py'), size=2, resume=True)
        expected = complete_run(method, [resumed])
        assert all(expected[key] == value for key, value in before.items())
        assert figures(folder / name) == expected
        assert not list((folder / name).glob('.*tmp')) and not (folder / name / 'running.json').exists()

    return check


def test_one_rank_is_killed_in_a_step(faults, train, check_resume):
    folder, make, _ = faults
    run = train(make('killed', what='die', step=6, ranks=[1]))
    run.until(lambda: (folder / 'killed' / 'iter_4.pth').exists())
    start = time.monotonic()
    assert run.exit() == 1 and time.monotonic() - start < 30
    assert 'error: rank 1 (process' in run.output and 'SIGKILL' in run.output
    assert '--resume' in run.output and 'Traceback' not in run.output
    check_resume('killed')


@pytest.mark.slow
def test_all_ranks_are_killed_while_they_save(faults, train, check_resume):
    """The file is left incomplete."""
    folder, make, _ = faults
    work_dir = folder / 'torn'
    run = train(make('torn', what='slow_disk', step=6, ranks=[0]))
    unfinished_file = work_dir / '.iter_6.pth.tmp'
    run.until(lambda: unfinished_file.exists() and unfinished_file.stat().st_size > 2**16)
    ranks = run.ranks()
    assert set(ranks) == {0, 1}
    for pid in ranks.values():
        os.kill(pid, signal.SIGKILL)
    assert run.exit() == 1 and 'SIGKILL' in run.output
    unfinished_file.write_bytes(unfinished_file.read_bytes()[: 2**16])
    assert not (work_dir / 'iter_6.pth').exists() and (work_dir / 'last_checkpoint').read_text() == 'iter_4.pth\n'
    check_resume('torn')


@pytest.mark.slow
def test_an_incomplete_part_of_a_full_model_is_skipped(faults, train, check_resume):
    """All ranks die, and the latest checkpoint is damaged. The run resumes from the one before it."""
    folder, make, _ = faults
    run = train(make('full', 'full', what='die', step=7, ranks=[0, 1]))
    assert run.exit() == 1 and 'SIGKILL' in run.output
    parts = sorted((folder / 'full' / 'iter_6.pth').iterdir())
    assert len(parts) == 2
    parts[1].write_bytes(parts[1].read_bytes()[:-1000])
    check_resume('full', 'full', lost_steps=SAVE_EVERY)
    assert 'damaged' in (folder / 'full_resumed_rank_0.log').read_text()


@pytest.mark.slow
@pytest.mark.parametrize('method', ['lora', 'full'])
def test_full_disk(method, faults, train, check_resume):
    """A limit on the file size, like a quota, for the rank that writes an adapter or a part of a model."""
    folder, make, _ = faults
    name = f'disk_{method}'
    work_dir = folder / name
    run = train(make(name, method, background=True, pause=0.3))
    run.until(lambda: (work_dir / 'iter_4.pth').exists())
    resource.prlimit(run.ranks()[method == 'full'], resource.RLIMIT_FSIZE, (2**16, 2**16))
    assert run.exit() == 2
    assert run.output.count('error: ') == 1 and '--resume' in run.output
    assert 'Traceback' not in run.output and not list(work_dir.glob('.*tmp'))
    check_resume(name, method, lost_steps=2 * SAVE_EVERY)  # an error of a background write is raised at the next save


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint(faults, train, check_resume):
    folder, make, _ = faults
    run = train(make('stopped', pause=0.3))
    run.until(lambda: 'step 3/' in run.output)
    run.process.send_signal(signal.SIGINT)
    assert run.exit() == 130
    assert 'interrupted after step' in run.output and 'Traceback' not in run.output and 'death' not in run.output
    check_resume('stopped', lost_steps=0)


@pytest.mark.slow
def test_a_second_run_in_the_same_folder_is_refused_on_every_rank(faults, train, start):
    folder, make, _ = faults
    config = make('twice', pause=8.0)
    run = train(config)
    run.until(lambda: (folder / 'twice' / 'iter_2.pth').exists())
    second_run = start([sys.executable, '-m', 'xtune', 'train', config], folder, 'refused', NPROC_PER_NODE='2')
    assert second_run.exit() == 2
    assert second_run.output.count('error: ') == 1 and 'Traceback' not in second_run.output
    assert f'process {run.ranks()[0]} on ' in second_run.output and not list((folder / 'twice').glob('earlier_*'))
    run.process.send_signal(signal.SIGINT)
    assert run.exit() == 130, run.output
    assert not (folder / 'twice' / 'running.json').exists()


@pytest.mark.slow
def test_a_restart_by_the_launcher_resumes(faults, start, figures):
    folder, make, complete_run = faults
    config = make('restarted', what='die_once', step=6, ranks=[1])
    torchrun = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2', '--max-restarts=1']
    run = start([*torchrun, '-m', 'xtune', 'train', config, '--resume'], folder, 'restarted')
    assert run.exit() == 0, run.output
    assert 'no checkpoint' in run.output and 'iter_4.pth' in run.output
    assert figures(folder / 'restarted') == complete_run('lora')


@pytest.mark.slow
def test_a_hung_rank_dumps_stacks_and_ends(faults, train):
    folder, make, _ = faults
    run = train(make('hung', timeout=6.0, what='hang', step=4, ranks=[1]))
    assert run.exit() == 2
    assert 'rank 0 timed out after 6 s' in run.output and 'Traceback' not in run.output
    stacks = [(folder / 'hung' / f'stacks_rank_{rank}.txt').read_text() for rank in range(2)]
    assert 'all_reduce' in stacks[0] and 'before_train_iter' in stacks[1]
