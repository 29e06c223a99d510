"""Number of torch CPU threads on a machine that other processes share.

An operation waits for its slowest thread. With more threads than free cores that thread waits to be scheduled, and a
step can take minutes instead of seconds.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path

import torch

# The user's thread count; torch reads these variables when it is imported.
THREAD_VARIABLES = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')
# Seconds between the two readings of /proc/stat.
SAMPLING_SECONDS = 0.2


def use_free_cores(processes: int = 1, env: Mapping[str, str] = os.environ) -> None:
    """Limit torch's threads to the number of free cores, unless the user set a number.

    Args:
        processes: Ranks of this run on this host, which share the cores.
        env: The environment.
    """
    if any(env.get(name) for name in THREAD_VARIABLES):
        return
    before, allowed = torch.get_num_threads(), allowed_cores()
    # The ranks of a run start together and would count each other as foreign load.
    count = allowed // processes if processes > 1 else free_cores(allowed)
    if max(1, count) < before:  # never raise the count: torch or a caller may have chosen fewer threads than cores
        torch.set_num_threads(max(1, count))


def restore_thread_count(count: int | None, env: Mapping[str, str] = os.environ) -> None:
    """Use the `count` threads of the resumed run, unless the user set a number.

    The number of threads changes the order of summation, so resuming is bit-exact only with the same number.
    """
    if count and count != torch.get_num_threads() and not any(env.get(name) for name in THREAD_VARIABLES):
        torch.set_num_threads(count)
        noun = 'thread' if count == 1 else 'threads'
        print(f'note: continues with {count} CPU {noun}, as before (OMP_NUM_THREADS sets another number)')


def describe_threads(env: Mapping[str, str] = os.environ) -> str:
    """Return the number of threads, and, if the user did not set it, the number of cores and how to change it."""
    count, cores = torch.get_num_threads(), os.cpu_count() or 1
    if count >= cores or any(env.get(name) for name in THREAD_VARIABLES):
        return f'{count} thread{"s" * (count != 1)}'
    return f'{count} of {cores} threads; set OMP_NUM_THREADS for another number'


def local_processes(env: Mapping[str, str] = os.environ) -> int:
    """Return how many ranks of this run share the cores that this process may use."""
    if env.get('SLURM_CPUS_PER_TASK'):  # Slurm assigns separate cores to each task
        return 1
    names = ('LOCAL_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_SIZE', 'SLURM_NTASKS_PER_NODE')
    return max(int(env[name]) if env.get(name, '').isdecimal() else 1 for name in names)


def allowed_cores(root: Path = Path('/')) -> int:
    """Return the number of cores that this process may use, limited by its CPU affinity and its cgroup quota."""
    affinity = getattr(os, 'sched_getaffinity', None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    quota = cgroup_quota(root)
    return cores if quota is None else max(1, min(cores, round(quota)))


def cgroup_quota(root: Path = Path('/')) -> float | None:
    """Return the smallest CPU quota, in cores, of this process' cgroup and its parents; None without a quota.

    Args:
        root: Folder with `proc` and `sys`.
    """
    try:
        lines = (root / 'proc/self/cgroup').read_text(encoding='utf-8').splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        hierarchy, controllers, path = line.split(':', 2)
        if hierarchy == '0' and not controllers:  # cgroup v2
            for folder in _with_parents(root / 'sys/fs/cgroup', path):
                quotas.append(_quota(_words(folder / 'cpu.max')))
        elif 'cpu' in controllers.split(','):
            for name in {controllers, 'cpu'}:
                for folder in _with_parents(root / 'sys/fs/cgroup' / name, path):
                    words = _words(folder / 'cpu.cfs_quota_us') + _words(folder / 'cpu.cfs_period_us')
                    quotas.append(_quota(words))
    return min((quota for quota in quotas if quota is not None), default=None)


def free_cores(allowed: int) -> int:
    """Return how many of `allowed` cores other processes leave free, at least 1.

    Use the smaller of the mean load of the last minute and the current utilization: the load still contains processes
    that have ended, such as those that prepared data, and the utilization does not tell a short task from a long one.
    """
    try:
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
    except OSError:
        return allowed
    if load * allowed < 0.5:
        return allowed
    busy = min(load, busy_share())
    return min(allowed, max(1, round(allowed * (1 - busy))))


def busy_share(stat: Path = Path('/proc/stat')) -> float:
    """Return the current utilization, 0 to 1, of the cores that this process may use."""
    first = _core_ticks(stat)
    time.sleep(SAMPLING_SECONDS)
    second = _core_ticks(stat)
    spent = [(after[0] - before[0], after[1] - before[1]) for before, after in zip(first, second, strict=False)]
    total = sum(ticks for ticks, _ in spent)
    return 1.0 if not total else 1 - sum(idle for _, idle in spent) / total  # 1.0 leaves the decision to the load


def _core_ticks(stat: Path) -> list[tuple[int, int]]:
    """Return (all, idle) clock ticks of each core that this process may use."""
    cores = os.sched_getaffinity(0) if hasattr(os, 'sched_getaffinity') else set(range(os.cpu_count() or 1))
    ticks_of_cores = []
    for words in map(str.split, stat.read_text(encoding='utf-8').splitlines()) if stat.is_file() else ():
        if words and words[0][3:].isdecimal() and words[0][:3] == 'cpu' and int(words[0][3:]) in cores:
            ticks = list(map(int, words[1:9]))
            ticks_of_cores.append((sum(ticks), ticks[3] + ticks[4]))
    return ticks_of_cores


def _with_parents(top: Path, path: str) -> list[Path]:
    """Return the folders of a cgroup and its parents up to `top`; a container may see only the topmost."""
    folder = top / path.strip('/')
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(top))]


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding='ascii').split()
    except OSError:
        return []


def _quota(words: list[str]) -> float | None:
    """Return a quota in cores from quota and period in microseconds, such as ['150000', '100000']."""
    if len(words) != 2 or not all(word.isdecimal() for word in words) or int(words[1]) == 0:  # 'max' or -1: no quota
        return None
    return int(words[0]) / int(words[1])
