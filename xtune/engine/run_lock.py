"""The lock of a work dir, which allows one run at a time: the file `running.json` names the process that writes there.

The file is created exclusively, which network file systems support too. A heartbeat updates its mtime while the run
lasts. If the file system supports flock, the run also holds a flock on the file, so that other containers on the same
system detect the end of the run at once.
"""

import json
import os
import shlex
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from ..errors import ConfigError
from ..parallel.rendezvous import Rendezvous
from .lock_file import heartbeat_age, host_mutex, is_unlocked, try_flock
from .lock_owner import HEARTBEAT_TIMEOUT, HIDDEN, Owner, process_start, reason_ended, same_system

NAME = 'running.json'
# Seconds between heartbeats.
HEARTBEAT_INTERVAL = 20.0
# Attempts to create the lock file. One fails if another run creates or removes the file at the same moment.
_ATTEMPTS = 100


@contextmanager
def lock_work_dir(work_dir: Path, config: Path, rendezvous: Rendezvous | None = None) -> Iterator[None]:
    """Lock `work_dir` inside the block; rank 0 holds the lock for all ranks.

    Raises:
        ConfigError: Another run writes there, or may still write there. All ranks raise it.
    """
    lock, refusal = None, ''
    try:
        if rendezvous is None or rendezvous.world.is_main:
            try:
                lock = Lock(work_dir / NAME, Owner.of_this_process(config))
            except ConfigError as error:
                refusal = str(error)
        if rendezvous is not None:
            refusal = rendezvous.broadcast_text('work_dir', refusal)
            if refusal:
                rendezvous.wait_before_exit()
        if refusal:
            raise ConfigError(refusal)
        yield
    finally:
        if lock is not None:
            lock.release()


class Lock:
    """The lock file `path`, which names `owner` until `release`.

    Raises:
        ConfigError: It names another run that has not ended or may not have ended, or it cannot be written.
    """

    def __init__(self, path: Path, owner: Owner) -> None:
        self.path, self.owner = path, owner
        self._file: TextIO | None = None
        with host_mutex(path):
            try:
                self._acquire()
            except OSError as error:
                raise ConfigError(
                    f'{path} cannot be read or written ({error.strerror}); choose another folder with --work-dir'
                ) from error
        self._released = threading.Event()
        # A daemon thread does not delay the exit of a process that does not call `release`.
        threading.Thread(target=self._send_heartbeats, name='lock', daemon=True).start()

    def release(self) -> None:
        """Remove the file, unless it already names another run."""
        self._released.set()
        with suppress(OSError):
            if Owner.read(self.path) == self.owner:
                self.path.unlink()
        if self._file is not None:
            self._file.close()  # releases the flock

    def _acquire(self) -> None:
        for _ in range(_ATTEMPTS):
            try:
                file = self.path.open('x', encoding='utf-8')
            except FileExistsError:
                with suppress(FileNotFoundError):
                    self._remove_stale()
                continue
            try:
                self.owner = replace(self.owner, locked=try_flock(file))
                file.write(json.dumps(asdict(self.owner), indent=2) + '\n')
                file.flush()
            except OSError:  # the disk is full
                self.path.unlink(missing_ok=True)
                with suppress(OSError):
                    file.close()
                raise
            self._file = file  # the flock lasts as long as the file is open
            return
        raise ConfigError(
            f'{self.path} could not be created: another program keeps creating and removing it. Stop that program, or '
            'choose another folder with --work-dir'
        )

    def _remove_stale(self) -> None:
        """Remove the file if its run has ended.

        Raises:
            ConfigError: The run has not ended, or may not have ended.
            FileNotFoundError: The file no longer exists.
        """
        other, age = Owner.read(self.path), heartbeat_age(self.path)
        reason = reason_ended(other, self.owner, age, unlocked=is_unlocked(self.path))
        if not reason:
            raise ConfigError(_refusal(self.path, other, self.owner, age))
        renamed = self.path.with_name(f'.{NAME}.{self.owner.token}.tmp')
        self.path.rename(renamed)
        if Owner.read(renamed) != other:  # without the mutex, another run may have replaced it in the meantime
            renamed.rename(self.path)
            return
        renamed.unlink()
        print(f'note: replaced the stale lock of an earlier run ({reason}): {other or "unreadable lock file"}')

    def _send_heartbeats(self) -> None:
        while not self._released.wait(HEARTBEAT_INTERVAL):
            try:
                current = Owner.read(self.path)
                if current == self.owner:
                    os.utime(self.path)
                    continue
            except FileNotFoundError:
                current = None
            except OSError:
                continue  # a network file system that does not respond for a while
            if not self._released.is_set():
                change = f'now names another run ({current})' if current else 'was removed'
                tqdm.write(
                    f"warning: {self.path} {change}: two runs in {self.path.parent} overwrite each other's "
                    'checkpoints; stop one of them'
                )
            return


def _refusal(path: Path, other: Owner | None, here: Owner, heartbeat_seconds: float) -> str:
    """Return the error message for a work dir that the run of `other` still uses, or may still use."""
    names = (path.parent.with_name(f'{path.parent.name}_{number}') for number in range(2, 1000))
    unused = next((name for name in names if not name.exists()), 'ANOTHER_FOLDER')
    text = (
        f'work_dir {path.parent} is in use by another run: {other or "its process is not known yet"}. A second run '
        'would move its checkpoints and mix the files of both. Choose another folder: '
        f'--work-dir {shlex.quote(str(unused))}'
    )
    if other is not None and other.machine == here.machine and process_start(other.pid) != HIDDEN:
        return text
    advice = f'If you know that it has ended: rm {shlex.quote(str(path))}'
    if other is not None and other.locked and same_system(other, here):
        return f'{text}. Its process is in another container or hidden, and holds the flock on the file. {advice}'
    return (
        f'{text}. Its process is not visible from {here.host}; the last heartbeat is {max(heartbeat_seconds, 0):.0f} s '
        f'old. A run counts as ended after {HEARTBEAT_TIMEOUT:.0f} s without a heartbeat. {advice}'
    )
