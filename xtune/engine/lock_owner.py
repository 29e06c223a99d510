"""Which process a run belongs to, and whether that run is over.

The process table of the same machine answers that; a pid that was given to another process shows by its start. Where
the table hides the process, or belongs to another container, the system's lock on the file does: it goes with the
process that holds it. Of a run on another machine only the time since its last sign of life can tell.
"""

import json
import os
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

# Seconds without a sign of life after which a run on another machine counts as ended.
SILENCE = 300.0
# Schedulers that start a job again under the same id: the id, and how often that happened.
JOBS = (('SLURM_JOB_ID', 'SLURM_RESTART_COUNT'), ('TORCHELASTIC_RUN_ID', 'TORCHELASTIC_RESTART_COUNT'))


# What stands for the start of a process that exists, and whose start this user may not see (hidepid).
HIDDEN = 'hidden'


@dataclass(frozen=True)
class Owner:
    """The main process of a run; `machine` and `process` tell it from others with the same host name or pid.

    `locked` says that it holds the system's lock on its file as long as it lives.
    """

    host: str
    machine: str
    pid: int
    process: str
    started: str
    config: str
    jobs: dict[str, int]
    token: str
    locked: bool = False

    @classmethod
    def of_this_process(cls, config: Path, env: Mapping[str, str] = os.environ) -> 'Owner':
        """Return what names this process, which runs `config`."""
        # 'none' is what torchrun calls every run that has no id.
        known = [(name, count) for name, count in JOBS if env.get(name, 'none') != 'none']
        jobs = {f'{name}={env[name]}': int(env.get(count) or 0) for name, count in known}
        started = time.strftime('%Y-%m-%d %H:%M:%S')
        pid, token = os.getpid(), uuid.uuid4().hex
        return cls(
            socket.gethostname(), machine(), pid, process_start(pid) or '', started, str(config.absolute()), jobs, token
        )

    @classmethod
    def read(cls, path: Path) -> 'Owner | None':
        """Return the owner that `path` names; None if its text is not whole.

        Raises:
            OSError: There is no such file, or this user may not read it.
        """
        text = path.read_text(encoding='utf-8', errors='replace')
        try:
            values = json.loads(text)
            # Versions before this one held no lock.
            return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values or f.name != 'locked'})
        except (ValueError, KeyError, TypeError):
            return None

    def __str__(self) -> str:
        return f'process {self.pid} on {self.host}, since {self.started}, with config {self.config}'


def machine() -> str:
    """Return what two processes have in common that see the same process table, until the machine is restarted."""
    try:
        boot = Path('/proc/sys/kernel/random/boot_id').read_text(encoding='ascii').strip()
        return f'{boot} {os.readlink("/proc/self/ns/pid")}'
    except OSError:
        return socket.gethostname()


def process_start(pid: int) -> str | None:
    """Return when a process of this machine began, in a form that only equals itself; None if it is gone.

    `HIDDEN` if it is another user's, and the system hides those.
    """
    if Path('/proc/self/stat').exists():
        try:
            # Behind the name, which may hold anything: the state, and 19 fields on the clock ticks since the boot.
            values = Path(f'/proc/{pid}/stat').read_text(encoding='utf-8', errors='replace').rpartition(')')[2].split()
        except OSError:
            return HIDDEN if _exists(pid) else None
        return None if values[0] in 'ZX' else values[19]
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    except psutil.NoSuchProcess:
        return None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # sends nothing
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def same_system(one: Owner, other: Owner) -> bool:
    """Tell whether two processes run on one system, in one container or in two, so that each sees the other's locks."""
    boot, _, space = one.machine.partition(' ')
    return bool(space) and boot == other.machine.partition(' ')[0]


def why_ended(owner: Owner | None, here: Owner, silent: float, free: bool = False) -> str:
    """Return why the run of `owner` is over; empty if it may go on.

    Args:
        owner: Whom the file names; None: its text is not whole.
        here: This process.
        silent: Seconds since the owner's last heartbeat.
        free: Whether no process that this system knows holds the lock on the file.
    """
    if owner is not None and owner.machine == here.machine:
        start = process_start(owner.pid)
        if start is None:
            return 'its process is gone'
        if start != HIDDEN:
            return '' if start == owner.process else f'its pid {owner.pid} now belongs to another process'
    if owner is not None and owner.locked and same_system(owner, here):
        return 'its process is gone, and its lock with it' if free else ''
    if owner is not None and any(here.jobs.get(job, 0) > count for job, count in owner.jobs.items()):
        return 'its job was started again, as this run'
    return f'it gave no sign of life for {silent:.0f} s' if silent > SILENCE else ''
