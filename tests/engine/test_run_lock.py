"""One run per work dir: which runs are refused, and which stale locks are replaced."""

import dataclasses
import json
import os
import subprocess
import sys
import time

import pytest

from xtune.engine import lock_owner, run_lock
from xtune.engine.lock_owner import HEARTBEAT_TIMEOUT, HIDDEN, Owner, process_start
from xtune.engine.run_lock import NAME, Lock, lock_work_dir
from xtune.errors import ConfigError


@pytest.fixture
def write_lock(tmp_path):
    """Return a function that writes the lock of another run with a heartbeat `age` seconds ago.

    Its owner is this process, except for the fields given as keywords.
    """

    def write_lock(age=0.0, **fields):
        owner = dataclasses.replace(Owner.of_this_process(tmp_path / 'other.py', {}), **fields)
        (tmp_path / NAME).write_text(json.dumps(dataclasses.asdict(owner)), encoding='utf-8')
        os.utime(tmp_path / NAME, (time.time() - age,) * 2)
        return owner

    return write_lock


@pytest.fixture
def zombie_pid():
    """Pid of a process that has ended but was not waited for, as a launcher leaves it for a moment."""
    process = subprocess.Popen([sys.executable, '-c', ''])
    deadline = time.monotonic() + 20
    while process_start(process.pid) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield process.pid
    process.wait()


def lock_and_release(tmp_path, name='mine.py'):
    """Lock the folder once; return the owner that the lock file named meanwhile."""
    with lock_work_dir(tmp_path, tmp_path / name):
        return Owner.read(tmp_path / NAME)


def test_second_run_is_refused_with_the_owner_of_the_lock(tmp_path):
    work_dir = tmp_path / 'my run'
    work_dir.mkdir()
    with lock_work_dir(work_dir, tmp_path / 'mine.py'):
        with pytest.raises(ConfigError) as refused:
            lock_and_release(work_dir)
        owner = Owner.read(work_dir / NAME)
    for detail in (
        owner.host,
        f'process {os.getpid()} ',
        owner.started,
        str(tmp_path / 'mine.py'),
        f"'{tmp_path}/my run_2'",
    ):
        assert detail in str(refused.value)
    assert not list(work_dir.iterdir())
    assert lock_and_release(work_dir).pid == os.getpid()


def test_lock_is_removed_when_the_run_ends_or_fails(tmp_path):
    for error in (KeyboardInterrupt, ConfigError('a'), RuntimeError('b')):
        with pytest.raises(type(error) if isinstance(error, Exception) else error):
            with lock_work_dir(tmp_path, tmp_path / 'mine.py'):
                raise error
        assert not list(tmp_path.glob('*running*'))


def test_lock_of_an_ended_process_is_replaced(tmp_path, write_lock, zombie_pid, capsys):
    write_lock(pid=zombie_pid)
    assert lock_and_release(tmp_path).pid == os.getpid()
    assert 'has ended' in capsys.readouterr().out


def test_lock_with_a_reused_pid_is_replaced(tmp_path, write_lock, capsys):
    write_lock(process='1')
    assert lock_and_release(tmp_path).config == str(tmp_path / 'mine.py')
    assert f'pid {os.getpid()}' in capsys.readouterr().out


def test_live_process_keeps_its_lock_without_heartbeats(tmp_path, write_lock):
    write_lock(age=1e6)  # a laptop that slept
    with pytest.raises(ConfigError, match='--work-dir'):
        lock_and_release(tmp_path)


def test_lock_of_another_machine_is_replaced_after_the_heartbeat_timeout(tmp_path, write_lock, zombie_pid, capsys):
    other_machine = dict(host='gpu7', machine='another', pid=zombie_pid)
    write_lock(age=40, **other_machine)
    with pytest.raises(ConfigError, match=r'gpu7.* 4\d s .*rm ') as refused:
        lock_and_release(tmp_path)
    assert str(tmp_path / NAME) in str(refused.value)
    write_lock(age=HEARTBEAT_TIMEOUT + 10, **other_machine)
    assert lock_and_release(tmp_path).host != 'gpu7'
    assert 'gpu7' in capsys.readouterr().out


def in_another_container(machine):
    """Return `machine` with another pid namespace."""
    return machine.partition(' ')[0] + ' pid:[1]'


def test_restarted_container_replaces_its_lock_at_once(tmp_path, write_lock, capsys):
    other = in_another_container(Owner.of_this_process(tmp_path).machine)
    write_lock(machine=other)  # written by a version without flock
    with pytest.raises(ConfigError, match='rm '):
        lock_and_release(tmp_path)
    write_lock(machine=other, locked=True)
    assert lock_and_release(tmp_path).pid == os.getpid()
    assert 'has ended' in capsys.readouterr().out
    write_lock(machine='another boot pid:[1]', locked=True)  # this system does not see its flock
    with pytest.raises(ConfigError, match='rm '):
        lock_and_release(tmp_path)


def test_run_in_another_container_keeps_its_lock_without_heartbeats(tmp_path, monkeypatch):
    machine = lock_owner.machine()
    monkeypatch.setattr(lock_owner, 'machine', lambda: in_another_container(machine))
    with lock_work_dir(tmp_path, tmp_path / 'other.py'):
        monkeypatch.setattr(lock_owner, 'machine', lambda: machine)
        os.utime(tmp_path / NAME, (time.time() - 9 * HEARTBEAT_TIMEOUT,) * 2)
        with pytest.raises(ConfigError, match='container.*: rm '):
            lock_and_release(tmp_path)


def test_hidden_process_is_judged_by_flock_and_heartbeat(tmp_path, write_lock, zombie_pid, monkeypatch):
    def refused(pid, signal):
        raise PermissionError

    monkeypatch.setattr(os, 'kill', refused)  # as for a process of another user
    hidden = 2**22 + 1  # above all pids
    assert process_start(hidden) == HIDDEN and process_start(os.getpid()) != HIDDEN
    write_lock(pid=hidden, age=1)
    with pytest.raises(ConfigError, match='rm '):
        lock_and_release(tmp_path)
    write_lock(pid=hidden, age=HEARTBEAT_TIMEOUT + 1)
    assert lock_and_release(tmp_path).pid == os.getpid()
    write_lock(pid=hidden, locked=True)
    assert lock_and_release(tmp_path).pid == os.getpid()


def test_requeued_job_replaces_the_lock_of_its_first_start(tmp_path, write_lock, monkeypatch):
    """On another host, which does not see the process, and before the heartbeat timeout."""
    write_lock(host='gpu7', machine='another', jobs={'SLURM_JOB_ID=71': 0})
    monkeypatch.setenv('SLURM_JOB_ID', '71')
    with pytest.raises(ConfigError):  # another step of the same start
        lock_and_release(tmp_path)
    monkeypatch.setenv('SLURM_RESTART_COUNT', '1')
    assert lock_and_release(tmp_path).jobs == {'SLURM_JOB_ID=71': 1}


@pytest.mark.parametrize('text', ['', '{"host": "a"', '[1]', '{"host": "a"}'])
def test_unreadable_lock_is_judged_by_its_heartbeat(tmp_path, text):
    for age in (1, HEARTBEAT_TIMEOUT + 1):
        (tmp_path / NAME).write_text(text)
        os.utime(tmp_path / NAME, (time.time() - age,) * 2)
        if age == 1:
            with pytest.raises(ConfigError, match='--work-dir'):
                lock_and_release(tmp_path)
    lock_and_release(tmp_path)


def test_heartbeats_and_a_warning_if_another_run_replaced_the_lock(tmp_path, write_lock, monkeypatch, capsys):
    monkeypatch.setattr(run_lock, 'HEARTBEAT_INTERVAL', 0.02)
    path = tmp_path / NAME
    lock = Lock(path, Owner.of_this_process(tmp_path / 'mine.py'))
    os.utime(path, (1, 1))
    deadline = time.monotonic() + 20
    while path.stat().st_mtime == 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    other = write_lock(token='another')
    output = ''
    while NAME not in output:
        assert time.monotonic() < deadline
        output += capsys.readouterr().out
        time.sleep(0.01)
    lock.release()
    assert Owner.read(path) == other  # the lock of the other run stays


def test_lock_works_without_a_writable_cache(tmp_path, write_lock, zombie_pid, monkeypatch):
    (tmp_path / 'file').touch()
    monkeypatch.setenv('XTUNE_CACHE', str(tmp_path / 'file' / 'below'))
    write_lock(pid=zombie_pid)
    assert lock_and_release(tmp_path).pid == os.getpid()


def test_missing_folder_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match='missing'):
        lock_and_release(tmp_path / 'missing')


def test_full_disk_leaves_no_lock_file(tmp_path):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))  # as a quota; Python ignores the signal
    try:
        with pytest.raises(ConfigError, match=str(tmp_path)):
            lock_and_release(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / NAME).exists()
