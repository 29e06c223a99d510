"""Primitives of a lock file: flock, a mutex of this host, and the age of the last heartbeat."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import TextIO

from filelock import FileLock

from ..errors import ConfigError
from ..utils.cache import cache_folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextmanager
def host_mutex(path: Path) -> Iterator[None]:
    """Let only one process of this host inspect or replace the lock file `path` at a time, if the cache is writable."""
    try:
        folder = cache_folder('locks')
    except ConfigError:  # exclusive creation and rename are still safe, except for two starts within milliseconds
        yield
        return
    mutex = FileLock(folder / hashlib.blake2b(str(path.absolute()).encode(), digest_size=16).hexdigest())
    try:
        mutex.acquire()
    except (OSError, NotImplementedError):  # a file system without locks
        yield
        return
    try:
        yield
    finally:
        mutex.release()


def try_flock(file: TextIO) -> bool:
    """Take an exclusive flock on an open file; return False if the file system does not support flock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (OSError, AttributeError):
        return False
    return True


def is_unlocked(path: Path) -> bool:
    """Return whether no process of this system holds an exclusive flock on `path`; False if this is unknown."""
    with path.open(encoding='utf-8') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (OSError, AttributeError):
            return False
        return True


def heartbeat_age(path: Path) -> float:
    """Return the seconds since the last heartbeat, the mtime of `path`, by the clock of its file system."""
    with TemporaryFile(dir=path.parent) as file:
        file.write(b' ')
        file.flush()
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_mtime - path.stat().st_mtime
