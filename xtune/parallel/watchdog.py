"""Signs of life: stacks are written when a run hangs, and a process that is asked to end does end."""

import faulthandler
import os
import signal
import socket
import threading
import time
from pathlib import Path
from types import TracebackType

# Seconds that a process has after SIGTERM to finish its step, beside thrice the longest step so far.
GRACE = 15


class Watchdog:
    """Watches over one process of a run with several; use it as a context around the training loop.

    A process that waits in a collective for a dead one runs no Python code: its stack is written by a thread of
    `faulthandler`, and it is ended by a thread that listens to the signal's file descriptor.

    Args:
        folder: Gets `stacks_rank_N.txt` when something hangs.
        rank: Of this process.
        hang: Seconds without a sign of life after which stacks are written.
        grace: Seconds after SIGTERM without a sign of life after which the process ends itself.
    """

    def __init__(self, folder: Path, rank: int, hang: float, grace: float = GRACE) -> None:
        self.path, self.hang, self.grace = folder / f'stacks_rank_{rank}.txt', hang, grace
        self._last, self._longest = time.monotonic(), 0.0

    def __enter__(self) -> 'Watchdog':
        self._file = self.path.open('w')
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        self._before = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        self._over = threading.Event()
        # A daemon: where __exit__ is never reached, it shall not hold up the end of the process.
        self._listener = threading.Thread(target=self._listen, name='watch', daemon=True)
        self._listener.start()
        self.alive()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        faulthandler.cancel_dump_traceback_later()
        signal.set_wakeup_fd(self._before)
        self._over.set()
        self._write.close()
        self._listener.join()
        self._read.close()
        wrote = self._file.tell() or self.path.stat().st_size
        self._file.close()
        if not wrote:
            self.path.unlink(missing_ok=True)

    def alive(self) -> None:
        """Say that the process is at work; call it once an optimizer step."""
        now = time.monotonic()
        self._longest, self._last = max(self._longest, now - self._last), now
        faulthandler.dump_traceback_later(self.hang, file=self._file)

    def _listen(self) -> None:
        while signals := self._read.recv(16):
            if signal.SIGTERM in signals:
                asked, wait = time.monotonic(), self.grace + 3 * self._longest
                while self._last < asked and time.monotonic() < asked + wait:
                    if self._over.wait(0.1):  # the process left the loop, as it was asked to
                        return
                if self._last < asked:
                    faulthandler.dump_traceback(self._file)
                    os._exit(128 + signal.SIGTERM)
