"""A work_dir belongs to one run: who is refused, and which locks that are left over are taken."""

import dataclasses
import os
import subprocess
import sys
import time

import pytest

from xtune.engine import lock_owner, run_lock
from xtune.engine.lock_owner import HIDDEN, SILENCE, Owner, process_start
from xtune.engine.run_lock import NAME, Lock, claimed
from xtune.errors import ConfigError


@pytest.fixture
def leave(tmp_path):
    """Return a function that leaves the lock of another run, this process' but for what it is given, `age` s old."""

    def leave(age=0.0, **other):
        from json import dumps

        owner = dataclasses.replace(Owner.here(tmp_path / 'other.py', {}), **other)
        (tmp_path / NAME).write_text(dumps(dataclasses.asdict(owner)), encoding='utf-8')
        os.utime(tmp_path / NAME, (time.time() - age,) * 2)
        return owner

    return leave


@pytest.fixture
def ended():
    """Pid of a process that has ended and was not waited for, as a launcher leaves it for a moment."""
    process = subprocess.Popen([sys.executable, '-c', ''])
    deadline = time.monotonic() + 20
    while process_start(process.pid) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield process.pid
    process.wait()


def claim(tmp_path, name='mine.py'):
    with claimed(tmp_path, tmp_path / name):
        return Owner.read(tmp_path / NAME)


def test_a_second_run_is_refused_and_told_whose_folder_it_is(tmp_path):
    work_dir = tmp_path / 'my run'
    work_dir.mkdir()
    with claimed(work_dir, tmp_path / 'mine.py'):
        with pytest.raises(ConfigError) as refused:
            claim(work_dir)
        own = Owner.read(work_dir / NAME)
    for what in (own.host, f'process {os.getpid()} ', own.started, str(tmp_path / 'mine.py'), f"'{tmp_path}/my run_2'"):
        assert what in str(refused.value)
    assert not list(work_dir.iterdir())
    assert claim(work_dir).pid == os.getpid()


def test_the_lock_goes_with_the_run_however_it_ends(tmp_path):
    for error in (KeyboardInterrupt, ConfigError('a'), RuntimeError('b')):
        with pytest.raises(type(error) if isinstance(error, Exception) else error):
            with claimed(tmp_path, tmp_path / 'mine.py'):
                raise error
        assert not list(tmp_path.glob('*running*'))


def test_the_lock_of_a_process_that_is_gone_is_taken(tmp_path, leave, ended, capsys):
    leave(pid=ended)
    assert claim(tmp_path).pid == os.getpid()
    assert 'is gone' in capsys.readouterr().out


def test_the_lock_of_a_pid_that_another_process_has_now_is_taken(tmp_path, leave, capsys):
    leave(process='1')
    assert claim(tmp_path).config == str(tmp_path / 'mine.py')
    assert f'pid {os.getpid()}' in capsys.readouterr().out


def test_a_live_process_keeps_its_lock_however_long_it_is_silent(tmp_path, leave):
    leave(age=1e6)  # a laptop that slept
    with pytest.raises(ConfigError, match='is not over'):
        claim(tmp_path)


def test_another_machine_is_refused_until_it_is_silent_for_long(tmp_path, leave, ended, capsys):
    elsewhere = dict(host='gpu7', machine='another', pid=ended)
    leave(age=40, **elsewhere)
    with pytest.raises(ConfigError, match=r'gpu7.* 4\d s .*rm ') as refused:
        claim(tmp_path)
    assert str(tmp_path / NAME) in str(refused.value)
    leave(age=SILENCE + 10, **elsewhere)
    assert claim(tmp_path).host != 'gpu7'
    assert 'gpu7' in capsys.readouterr().out


def in_another_container(machine):
    return machine.partition(' ')[0] + ' pid:[1]'


def test_a_container_that_starts_again_takes_the_lock_of_its_first_start_at_once(tmp_path, leave, capsys):
    other = in_another_container(Owner.here(tmp_path).machine)
    leave(machine=other)  # of a version that held no lock
    with pytest.raises(ConfigError, match='rm '):
        claim(tmp_path)
    leave(machine=other, locked=True)
    assert claim(tmp_path).pid == os.getpid()
    assert 'is gone' in capsys.readouterr().out
    leave(machine='another boot pid:[1]', locked=True)  # whose locks this system does not know
    with pytest.raises(ConfigError, match='rm '):
        claim(tmp_path)


def test_a_run_in_another_container_keeps_its_lock_however_long_it_is_silent(tmp_path, monkeypatch):
    there = lock_owner.machine()
    monkeypatch.setattr(lock_owner, 'machine', lambda: in_another_container(there))
    with claimed(tmp_path, tmp_path / 'other.py'):
        monkeypatch.setattr(lock_owner, 'machine', lambda: there)
        os.utime(tmp_path / NAME, (time.time() - 9 * SILENCE,) * 2)
        with pytest.raises(ConfigError, match='container.*: rm '):
            claim(tmp_path)


def test_a_process_that_the_system_hides(tmp_path, leave, ended, monkeypatch):
    def refused(pid, signal):
        raise PermissionError

    monkeypatch.setattr(os, 'kill', refused)  # as of another user's process
    hidden = 2**22 + 1  # above all pids
    assert process_start(hidden) == HIDDEN and process_start(os.getpid()) != HIDDEN
    leave(pid=hidden, age=1)
    with pytest.raises(ConfigError, match='rm '):
        claim(tmp_path)
    leave(pid=hidden, age=SILENCE + 1)
    assert claim(tmp_path).pid == os.getpid()
    leave(pid=hidden, locked=True)
    assert claim(tmp_path).pid == os.getpid()


def test_a_job_that_is_queued_again_takes_the_lock_of_its_first_start(tmp_path, leave, monkeypatch):
    """On another host, which cannot ask for the process, and before the heartbeat is old."""
    leave(host='gpu7', machine='another', jobs={'SLURM_JOB_ID=71': 0})
    monkeypatch.setenv('SLURM_JOB_ID', '71')
    with pytest.raises(ConfigError):  # another step of the same start
        claim(tmp_path)
    monkeypatch.setenv('SLURM_RESTART_COUNT', '1')
    assert claim(tmp_path).jobs == {'SLURM_JOB_ID=71': 1}


@pytest.mark.parametrize('text', ['', '{"host": "a"', '[1]', '{"host": "a"}'])
def test_a_lock_that_cannot_be_read_counts_by_its_age(tmp_path, text):
    for age in (1, SILENCE + 1):
        (tmp_path / NAME).write_text(text)
        os.utime(tmp_path / NAME, (time.time() - age,) * 2)
        if age == 1:
            with pytest.raises(ConfigError, match='not known yet'):
                claim(tmp_path)
    claim(tmp_path)


def test_signs_of_life_and_a_word_if_another_run_took_the_folder(tmp_path, leave, monkeypatch, capsys):
    monkeypatch.setattr(run_lock, 'HEARTBEAT', 0.02)
    path = tmp_path / NAME
    held = Lock(path, Owner.here(tmp_path / 'mine.py'))
    os.utime(path, (1, 1))
    deadline = time.monotonic() + 20
    while path.stat().st_mtime == 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    other = leave(token='another')
    out = ''
    while NAME not in out:
        assert time.monotonic() < deadline
        out += capsys.readouterr().out
        time.sleep(0.01)
    held.release()
    assert Owner.read(path) == other  # not ours to remove


def test_a_cache_that_cannot_be_written_does_not_matter(tmp_path, leave, ended, monkeypatch):
    (tmp_path / 'file').touch()
    monkeypatch.setenv('XTUNE_CACHE', str(tmp_path / 'file' / 'below'))
    leave(pid=ended)
    assert claim(tmp_path).pid == os.getpid()


def test_a_folder_that_cannot_be_written_is_an_error_for_the_user(tmp_path):
    with pytest.raises(ConfigError, match='missing'):
        claim(tmp_path / 'missing')


def test_a_full_disk_leaves_no_lock_behind(tmp_path):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))  # as a quota; Python ignores the signal
    try:
        with pytest.raises(ConfigError, match=str(tmp_path)):
            claim(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / NAME).exists()
