"""The number of CPU threads of a run: one per free core, unless the user sets it."""

import os
import subprocess
import sys

import pytest
import torch

from xtune.utils import cpu_threads
from xtune.utils.cpu_threads import (
    allowed_cores,
    busy_share,
    cgroup_quota,
    describe_threads,
    local_processes,
    restore_thread_count,
    use_free_cores,
)


@pytest.fixture
def host(monkeypatch):
    """Return a function that simulates a host of 16 cores with a load and a share of busy time."""
    thread_counts = []
    monkeypatch.setattr(os, 'cpu_count', lambda: 16)
    monkeypatch.setattr(torch, 'set_num_threads', thread_counts.append)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: thread_counts[-1] if thread_counts else 16)
    monkeypatch.setattr(cpu_threads, 'cgroup_quota', lambda root: None)

    def simulate(load=0.0, busy=0.0, affinity=16):
        monkeypatch.setattr(os, 'getloadavg', lambda: (load, load, load))
        monkeypatch.setattr(cpu_threads, 'busy_share', lambda: busy)
        monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(affinity)), raising=False)
        return thread_counts

    return simulate


@pytest.mark.parametrize(
    ('values', 'count'),
    [
        (dict(), None),
        (dict(load=8.0, busy=0.5), 8),
        (dict(load=40.0, busy=1.0), 1),  # at least one
        (dict(load=16.0, busy=0.0), None),  # the busy process has ended
        (dict(load=0.3, busy=0.9), None),  # the busy process has just started
        (dict(affinity=4), 4),
        (dict(affinity=4, load=8.0, busy=0.5), 2),
    ],
)
def test_there_is_one_thread_per_free_core(values, count, host):
    thread_counts = host(**values)
    use_free_cores(env={})
    assert thread_counts == ([] if count is None else [count])
    assert describe_threads({}) == (
        '16 threads' if count is None else f'{count} of 16 threads; set OMP_NUM_THREADS for another number'
    )


@pytest.mark.parametrize('name', ['OMP_NUM_THREADS', 'MKL_NUM_THREADS'])
def test_a_number_set_by_the_user_is_kept(name, host):
    thread_counts = host(load=16.0, busy=1.0)
    use_free_cores(env={name: '16'})
    assert not thread_counts and describe_threads({name: '16'}) == '16 threads'


def test_a_resumed_run_keeps_its_number_of_threads(host):
    thread_counts = host()
    restore_thread_count(3, {})
    assert thread_counts == [3]
    restore_thread_count(5, {'OMP_NUM_THREADS': '2'})
    restore_thread_count(None, {})  # a checkpoint of an earlier version
    assert thread_counts == [3]


def test_a_smaller_number_set_by_the_caller_is_kept(host):
    thread_counts = host(affinity=8)
    thread_counts.append(3)
    use_free_cores(env={})
    assert thread_counts == [3]


@pytest.mark.parametrize(('processes', 'count'), [(2, 8), (5, 3), (40, 1)])
def test_ranks_of_a_run_share_the_cores_at_any_load(processes, count, host):
    thread_counts = host(load=16.0, busy=1.0)
    use_free_cores(processes, env={})
    assert thread_counts == [count]


@pytest.mark.parametrize(
    ('env', 'count'),
    [
        ({'LOCAL_WORLD_SIZE': '4'}, 4),
        ({'OMPI_COMM_WORLD_LOCAL_SIZE': '8'}, 8),
        ({'SLURM_NTASKS_PER_NODE': '2'}, 2),
        ({'SLURM_NTASKS_PER_NODE': '2', 'SLURM_CPUS_PER_TASK': '6'}, 1),
        ({}, 1),
    ],
)
def test_the_number_of_ranks_on_a_host(env, count):
    assert local_processes(env) == count


@pytest.mark.parametrize(
    ('files', 'quota'),
    [
        ({'proc/self/cgroup': '0::/', 'sys/fs/cgroup/cpu.max': '150000 100000'}, 1.5),
        ({'proc/self/cgroup': '0::/a/b', 'sys/fs/cgroup/a/b/cpu.max': 'max 100000'}, None),
        # The smallest quota of all parent groups applies
        (
            {
                'proc/self/cgroup': '0::/a/b',
                'sys/fs/cgroup/a/cpu.max': '200000 100000',
                'sys/fs/cgroup/a/b/cpu.max': '800000 100000',
            },
            2.0,
        ),
        # A cgroup v1 container has the files of its own group at the root.
        (
            {
                'proc/self/cgroup': '5:cpuset:/x\n4:cpu,cpuacct:/docker/abc',
                'sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us': '300000',
                'sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us': '100000',
            },
            3.0,
        ),
        (
            {
                'proc/self/cgroup': '1:cpu:/',
                'sys/fs/cgroup/cpu/cpu.cfs_quota_us': '-1',
                'sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000',
            },
            None,
        ),
        ({}, None),
    ],
)
def test_the_quota_of_a_control_group(files, quota, tmp_path):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + '\n')
    assert cgroup_quota(tmp_path) == quota
    allowed = len(os.sched_getaffinity(0))
    assert allowed_cores(tmp_path) == (allowed if quota is None else max(1, min(allowed, round(quota))))


@pytest.mark.skipif(not os.path.exists('/proc/stat'), reason='busy_share reads /proc/stat')
def test_busy_cores_are_detected():
    affinity = os.sched_getaffinity(0)
    core = min(affinity)
    code = f'import os\nos.sched_setaffinity(0, {{{core}}})\nprint(flush=True)\nwhile 1: pass'
    process = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        os.sched_setaffinity(0, {core})
        assert busy_share() > 0.8
    finally:
        os.sched_setaffinity(0, affinity)
        process.kill()
        process.communicate()


def test_without_proc_stat_all_cores_count_as_busy(tmp_path):
    assert busy_share(tmp_path / 'none') == 1.0
