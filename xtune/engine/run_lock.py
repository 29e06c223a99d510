"""One run at a time in a work_dir: a file in it, `running.json`, names the process that writes there.

The file is created exclusively, which network file systems support too, and its time is renewed while the run goes on.
Where the file system has locks, the run holds one on the file: it tells other containers of the same system that the
run is over, at once.
"""

import hashlib
import json
import os
import shlex
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import TextIO

from filelock import FileLock
from tqdm import tqdm

from ..errors import ConfigError
from ..parallel.rendezvous import Rendezvous
from ..utils.cache import cache_folder
from .lock_owner import HIDDEN, SILENCE, Owner, process_start, same_system, why_ended

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NAME = 'running.json'
# Seconds between heartbeats.
HEARTBEAT = 20.0


@contextmanager
def lock_work_dir(work_dir: Path, config: Path, rendezvous: Rendezvous | None = None) -> Iterator[None]:
    """Lock `work_dir` for this run while the block lasts; rank 0 holds the lock for all ranks.

    Raises:
        ConfigError: Another run writes there, or may do so. Every process of this run raises it.
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
    """The file `path`, which names `owner` until `release`.

    Raises:
        ConfigError: It names another run that goes on or may do so, or cannot be written.
    """

    def __init__(self, path: Path, owner: Owner) -> None:
        self.path, self.owner = path, owner
        self._file: TextIO | None = None
        with _alone(path):
            try:
                self._take()
            except OSError as error:
                raise ConfigError(
                    f'{path} cannot be read or written ({error.strerror}); name another folder with --work-dir'
                ) from error
        self._over = threading.Event()
        # A daemon: a process that ends some other way is not held up.
        threading.Thread(target=self._live, name='lock', daemon=True).start()

    def release(self) -> None:
        """Remove the file, unless it names another run by now."""
        self._over.set()
        with suppress(OSError):
            if Owner.read(self.path) == self.owner:
                self.path.unlink()
        if self._file is not None:
            self._file.close()  # which gives its lock back

    def _take(self) -> None:
        for _ in range(100):  # each time another run was faster or has just ended
            try:
                file = self.path.open('x', encoding='utf-8')
            except FileExistsError:
                with suppress(FileNotFoundError):
                    self._remove_left_over()
                continue
            try:
                self.owner = replace(self.owner, locked=_locked(file))
                file.write(json.dumps(asdict(self.owner), indent=2) + '\n')
                file.flush()
            except OSError:  # the disk is full
                self.path.unlink(missing_ok=True)
                with suppress(OSError):
                    file.close()
                raise
            self._file = file  # a lock lasts as long as its file is open
            return
        raise ConfigError(f'{self.path} appears and disappears; remove what makes it, or name another --work-dir')

    def _remove_left_over(self) -> None:
        """Remove the file if its run is over.

        Raises:
            ConfigError: It may go on.
            FileNotFoundError: The file is gone already.
        """
        other, silent = Owner.read(self.path), _silence(self.path)
        why = why_ended(other, self.owner, silent, free=_is_free(self.path))
        if not why:
            raise ConfigError(_refusal(self.path, other, self.owner, silent))
        aside = self.path.with_name(f'.{NAME}.{self.owner.token}.tmp')
        self.path.rename(aside)
        if Owner.read(aside) != other:  # without a common mutex: another run replaced it just now
            aside.rename(self.path)
            return
        aside.unlink()
        print(f'note: the lock of an earlier run was left over ({why}) and is replaced; it was {other or "unreadable"}')

    def _live(self) -> None:
        while not self._over.wait(HEARTBEAT):
            try:
                found = Owner.read(self.path)
                if found == self.owner:
                    os.utime(self.path)
                    continue
            except FileNotFoundError:
                found = None
            except OSError:
                continue  # a network file system that does not answer for a while
            if not self._over.is_set():
                what = f'now names another run ({found})' if found else 'was removed'
                tqdm.write(f'warning: {self.path} {what}: two runs in {self.path.parent} lose checkpoints; stop one')
            return


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process of this host at a time look at a file that is left over, where the cache can be written to."""
    try:
        folder = cache_folder('locks')
    except ConfigError:  # what is made exclusively and renamed stays right, but for two that come within milliseconds
        yield
        return
    lock = FileLock(folder / hashlib.blake2b(str(path.absolute()).encode(), digest_size=16).hexdigest())
    try:
        lock.acquire()
    except (OSError, NotImplementedError):  # a file system without locks
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _locked(file: TextIO) -> bool:
    """Take the system's lock on an open file, alone; return whether the file system has such locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (OSError, AttributeError):
        return False
    return True


def _is_free(path: Path) -> bool:
    """Return whether no process of this system holds the lock on a file."""
    with path.open(encoding='utf-8') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (OSError, AttributeError):
            return False
        return True


def _silence(path: Path) -> float:
    """Return the seconds since `path` was renewed, by the clock of the file system that keeps it."""
    with TemporaryFile(dir=path.parent) as file:
        file.write(b' ')
        file.flush()
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_mtime - path.stat().st_mtime


def _refusal(path: Path, other: Owner | None, here: Owner, silent: float) -> str:
    names = (path.parent.with_name(f'{path.parent.name}_{number}') for number in range(2, 1000))
    free = next((name for name in names if not name.exists()), 'ANOTHER_FOLDER')
    who = other or 'whose process is not known yet'
    text = (
        f'work_dir {path.parent} belongs to a run that is not over: {who}. A second run in the same folder would move '
        'its checkpoints and mix the files of both. Give this run a folder of its own: '
        f'--work-dir {shlex.quote(str(free))}'
    )
    if other is not None and other.machine == here.machine and process_start(other.pid) != HIDDEN:
        return text
    over = f'If you know that it is over: rm {shlex.quote(str(path))}'
    if other is not None and other.locked and same_system(other, here):
        return f'{text}. Its process is in another container, or is hidden; it holds the lock on the file. {over}'
    return (
        f'{text}. Its process cannot be looked up from {here.host}; its last sign of life is {max(silent, 0):.0f} s '
        f'old, and after {SILENCE:.0f} s without one the run counts as ended. {over}'
    )
