"""How many threads torch computes with on a CPU that other processes share.

Each operation waits for the slowest of its threads. With more threads than free cores that one waits for its turn, so a
step may take minutes that takes seconds with fewer.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path

import torch

# Variables by which a person says how many threads: torch reads them when it is imported.
GIVEN = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')
# Seconds over which is seen how busy the cores are.
LOOK = 0.2


def use_free_cores(processes: int = 1, env: Mapping[str, str] = os.environ) -> None:
    """Let torch compute with no more threads than there are free cores for; a number that the user gave stays.

    Args:
        processes: Processes of this run on this host, which share the cores.
        env: The environment.
    """
    if any(env.get(name) for name in GIVEN):
        return
    before, allowed = torch.get_num_threads(), allowed_cores()
    # Processes of one run start together, and would take each other for other people's.
    count = allowed // processes if processes > 1 else free_cores(allowed)
    if max(1, count) < before:  # fewer than cores are torch's choice or that of a caller
        torch.set_num_threads(max(1, count))


def use_as_before(count: int | None, env: Mapping[str, str] = os.environ) -> None:
    """Let torch compute with the `count` threads of an earlier run, unless the user gives a number.

    Sums over threads are taken in another order with another number of them, so a resumed run would not be the same to
    the last bit.
    """
    if count and count != torch.get_num_threads() and not any(env.get(name) for name in GIVEN):
        torch.set_num_threads(count)
        noun = 'thread' if count == 1 else 'threads'
        print(f'note: goes on with {count} CPU {noun}, as before (OMP_NUM_THREADS sets another number)')


def described(env: Mapping[str, str] = os.environ) -> str:
    """Return with how many threads torch computes, of how many cores, and how to change that if nobody chose."""
    count, cores = torch.get_num_threads(), os.cpu_count() or 1
    if count >= cores or any(env.get(name) for name in GIVEN):
        return f'{count} thread{"s" * (count != 1)}'
    return f'{count} of {cores} threads; set OMP_NUM_THREADS for another number'


def local_processes(env: Mapping[str, str] = os.environ) -> int:
    """Return how many processes of this run share the cores that this one may use."""
    if env.get('SLURM_CPUS_PER_TASK'):  # Slurm gives each its own
        return 1
    names = ('LOCAL_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_SIZE', 'SLURM_NTASKS_PER_NODE')
    return max(int(env[name]) if env.get(name, '').isdecimal() else 1 for name in names)


def allowed_cores(root: Path = Path('/')) -> int:
    """Return the cores that this process may use: of its affinity, and of the quota of its control group."""
    affinity = getattr(os, 'sched_getaffinity', None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    quota = cgroup_quota(root)
    return cores if quota is None else max(1, min(cores, round(quota)))


def cgroup_quota(root: Path = Path('/')) -> float | None:
    """Return the cores that the quota of this process' control group, and of those around it, allows; None: no quota.

    Args:
        root: Folder with `proc` and `sys`.
    """
    try:
        lines = (root / 'proc/self/cgroup').read_text(encoding='utf-8').splitlines()
    except OSError:
        return None
    found = []
    for line in lines:
        number, controllers, place = line.split(':', 2)
        if number == '0' and not controllers:  # version 2
            for folder in _upwards(root / 'sys/fs/cgroup', place):
                found.append(_quota(_words(folder / 'cpu.max')))
        elif 'cpu' in controllers.split(','):
            for name in {controllers, 'cpu'}:
                for folder in _upwards(root / 'sys/fs/cgroup' / name, place):
                    words = _words(folder / 'cpu.cfs_quota_us') + _words(folder / 'cpu.cfs_period_us')
                    found.append(_quota(words))
    return min((quota for quota in found if quota is not None), default=None)


def free_cores(allowed: int) -> int:
    """Return how many of `allowed` cores other processes leave free, at least 1.

    A core counts as busy if the mean load of the last minute and a look at the cores now both say so: the load
    remembers processes that have ended, such as those that prepared data, and a look takes a short task for a long one.
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
    """Return the share of the time in which the cores that this process may use are busy, as others use them now."""
    first = _times(stat)
    time.sleep(LOOK)
    spent = [(after[0] - before[0], after[1] - before[1]) for before, after in zip(first, _times(stat), strict=False)]
    total = sum(whole for whole, _ in spent)
    return 1.0 if not total else 1 - sum(idle for _, idle in spent) / total  # without a look, the load alone tells


def _times(stat: Path) -> list[tuple[int, int]]:
    """Return the clock ticks of each core that this process may use, and those of them in which it was idle."""
    mine = os.sched_getaffinity(0) if hasattr(os, 'sched_getaffinity') else set(range(os.cpu_count() or 1))
    found = []
    for words in map(str.split, stat.read_text(encoding='utf-8').splitlines()) if stat.is_file() else ():
        if words and words[0][3:].isdecimal() and words[0][:3] == 'cpu' and int(words[0][3:]) in mine:
            ticks = list(map(int, words[1:9]))
            found.append((sum(ticks), ticks[3] + ticks[4]))
    return found


def _upwards(top: Path, place: str) -> list[Path]:
    """Return the folders of a control group and of those around it; in a container only the topmost may be there."""
    folder = top / place.strip('/')
    return [folder, *(one for one in folder.parents if one.is_relative_to(top))]


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding='ascii').split()
    except OSError:
        return []


def _quota(words: list[str]) -> float | None:
    """Return the cores of a quota and a period in microseconds, such as ['150000', '100000']."""
    if len(words) != 2 or not all(word.isdecimal() for word in words) or int(words[1]) == 0:  # 'max', -1: none
        return None
    return int(words[0]) / int(words[1])
