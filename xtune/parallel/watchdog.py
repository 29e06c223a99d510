"""Watchdog: a hung rank dumps its stack, and a rank that gets SIGTERM does end."""

import faulthandler
import os
import signal
import socket
import threading
import time
from pathlib import Path
from types import TracebackType

# Seconds that a rank has after SIGTERM to finish its step, besides three times the longest step so far.
GRACE_SECONDS = 15


class Watchdog:
    """Watches one rank of a distributed run; use it as a context around the training loop.

    A rank that waits in a collective for a dead one runs no Python code. So `faulthandler` dumps its stack from a
    thread of its own, and another thread, which reads the signal's file descriptor, ends it.

    Args:
        folder: Gets `stacks_rank_N.txt` when something hangs.
        rank: Of this process.
        hang_seconds: Seconds without a heartbeat after which stacks are dumped.
        grace_seconds: Seconds after SIGTERM without a heartbeat after which the process ends itself.
    """

    def __init__(self, folder: Path, rank: int, hang_seconds: float, grace_seconds: float = GRACE_SECONDS) -> None:
        self.path = folder / f'stacks_rank_{rank}.txt'
        self._hang_seconds, self._grace_seconds = hang_seconds, grace_seconds
        self._last_heartbeat, self._longest_step = time.monotonic(), 0.0

    def __enter__(self) -> 'Watchdog':
        self._file = self.path.open('w')
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        self._previous_fd = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        self._done = threading.Event()
        # A daemon thread: it must not keep the process alive where __exit__ is never reached.
        self._listener = threading.Thread(target=self._listen, name='watchdog', daemon=True)
        self._listener.start()
        self.heartbeat()
        return self

    def __exit__(self, error_class: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        faulthandler.cancel_dump_traceback_later()
        signal.set_wakeup_fd(self._previous_fd)
        self._done.set()
        self._write.close()
        self._listener.join()
        self._read.close()
        has_stacks = self._file.tell() or self.path.stat().st_size
        self._file.close()
        if not has_stacks:
            self.path.unlink(missing_ok=True)

    def heartbeat(self) -> None:
        """Restart the timeout; call it once an optimizer step."""
        now = time.monotonic()
        self._longest_step, self._last_heartbeat = max(self._longest_step, now - self._last_heartbeat), now
        faulthandler.dump_traceback_later(self._hang_seconds, file=self._file)

    def _listen(self) -> None:
        while signals := self._read.recv(16):
            if signal.SIGTERM in signals:
                received, wait = time.monotonic(), self._grace_seconds + 3 * self._longest_step
                while self._last_heartbeat < received and time.monotonic() < received + wait:
                    if self._done.wait(0.1):  # the process left the training loop, as asked
                        return
                if self._last_heartbeat < received:
                    faulthandler.dump_traceback(self._file)
                    os._exit(128 + signal.SIGTERM)
