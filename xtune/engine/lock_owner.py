"""Identifies the process that owns a run, and detects whether that run has ended.

On the same machine the process table decides. The start time of a process distinguishes it from a later process with
the same pid. If the process is hidden or in another container, the flock on the lock file decides: the system releases
it when the process ends. For a run on another machine only the age of its last heartbeat is known.
"""

import json
import os
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

# Seconds without a heartbeat after which a run on another machine counts as ended.
HEARTBEAT_TIMEOUT = 300.0
# Schedulers that restart a job under the same id: environment variables with the id and the number of restarts.
JOBS = (('SLURM_JOB_ID', 'SLURM_RESTART_COUNT'), ('TORCHELASTIC_RUN_ID', 'TORCHELASTIC_RESTART_COUNT'))

# The start time of an existing process if this user may not see it (hidepid).
HIDDEN = 'hidden'


@dataclass(frozen=True)
class Owner:
    """The main process of a run, as stored in the lock file.

    Attributes:
        host: Host name.
        machine: See `machine`; distinguishes machines with the same host name.
        pid: Process id.
        process: See `process_start`; distinguishes processes with the same pid.
        started: Local time of the start, for messages.
        config: Path of the config.
        jobs: Number of restarts of each scheduler job, by `VARIABLE=ID`.
        token: Unique to this start.
        locked: Whether the process holds a flock on the lock file until it ends.
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
        """Return the identity of this process, which runs `config`."""
        # torchrun uses the id 'none' for every run without an id.
        known = [(name, count) for name, count in JOBS if env.get(name, 'none') != 'none']
        jobs = {f'{name}={env[name]}': int(env.get(count) or 0) for name, count in known}
        started = time.strftime('%Y-%m-%d %H:%M:%S')
        pid, token = os.getpid(), uuid.uuid4().hex
        return cls(
            socket.gethostname(), machine(), pid, process_start(pid) or '', started, str(config.absolute()), jobs, token
        )

    @classmethod
    def read(cls, path: Path) -> 'Owner | None':
        """Return the owner that `path` names; None if its content is incomplete.

        Raises:
            OSError: The file does not exist, or this user may not read it.
        """
        text = path.read_text(encoding='utf-8', errors='replace')
        try:
            values = json.loads(text)
            # Earlier versions did not write `locked`.
            return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values or f.name != 'locked'})
        except (ValueError, KeyError, TypeError):
            return None

    def __str__(self) -> str:
        return f'process {self.pid} on {self.host}, since {self.started}, with config {self.config}'


def machine() -> str:
    """Return an id of the process table: equal for two processes that see the same one, until the machine reboots."""
    try:
        boot = Path('/proc/sys/kernel/random/boot_id').read_text(encoding='ascii').strip()
        return f'{boot} {os.readlink("/proc/self/ns/pid")}'
    except OSError:
        return socket.gethostname()


def process_start(pid: int) -> str | None:
    """Return the start time of a process of this machine as an opaque text; None if the process has ended.

    Return `HIDDEN` if it belongs to another user and the system hides it.
    """
    if Path('/proc/self/stat').exists():
        try:
            # After the name, which may contain any character: the state, and 19 fields later the start in clock ticks.
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
        os.kill(pid, 0)  # sends no signal
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def same_system(one: Owner, other: Owner) -> bool:
    """Return whether two processes run under one kernel, in the same or another container, and so share flocks."""
    boot, _, pid_namespace = one.machine.partition(' ')
    return bool(pid_namespace) and boot == other.machine.partition(' ')[0]


def reason_ended(owner: Owner | None, here: Owner, heartbeat_age: float, unlocked: bool = False) -> str:
    """Return the reason why the run of `owner` has ended; empty if it may still run.

    Args:
        owner: The owner that the lock file names; None: its content is incomplete.
        here: This process.
        heartbeat_age: Seconds since the owner's last heartbeat.
        unlocked: Whether no process of this system holds the flock on the file.
    """
    if owner is not None and owner.machine == here.machine:
        start = process_start(owner.pid)
        if start is None:
            return 'its process has ended'
        if start != HIDDEN:
            return '' if start == owner.process else f'its pid {owner.pid} now belongs to another process'
    if owner is not None and owner.locked and same_system(owner, here):
        return 'its process has ended and released the lock' if unlocked else ''
    if owner is not None and any(here.jobs.get(job, 0) > count for job, count in owner.jobs.items()):
        return 'its job was restarted as this run'
    return f'no heartbeat for {heartbeat_age:.0f} s' if heartbeat_age > HEARTBEAT_TIMEOUT else ''
