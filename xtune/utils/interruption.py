"""Handle Ctrl-C and SIGTERM: respond at once, and save even if the reader of the output is gone."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

NOTHING_TO_SAVE = 'interrupted before the first optimizer step: there is nothing to save'


@contextmanager
def interrupted_as(text: Callable[[], str]) -> Iterator[None]:
    """Give a KeyboardInterrupt without a message the message `text()`, which the command line prints."""
    try:
        yield
    except KeyboardInterrupt as error:
        if error.args:
            raise
        raise KeyboardInterrupt(text()) from None


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Raise a KeyboardInterrupt on SIGTERM, so that files are closed and locks are released."""

    def interrupt(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    with handling(interrupt, signal.SIGTERM):
        yield


@contextmanager
def handling(handler: Callable[[int, Any], None], *signals: signal.Signals) -> Iterator[None]:
    """Install `handler` for `signals`, and restore the previous handlers on exit; only in the main thread."""
    previous = {}
    try:
        with suppress(ValueError):  # not in the main thread
            for number in signals:
                previous[number] = signal.signal(number, handler)
        yield
    finally:
        for number, old_handler in previous.items():
            signal.signal(number, old_handler)


def say(text: str) -> None:
    """Write a line to the terminal from a signal handler, bypassing Python's buffers, which may be in use."""
    with suppress(OSError):
        os.write(2, f'\n{text}\n'.encode())


class Output:
    """A stream that ignores a closed pipe once the run is interrupted: Ctrl-C also ends the `tee` of a pipe.

    Args:
        stream: The stream to write to.
        interrupted: Returns whether the run was asked to stop. Before that, a closed pipe is an error.
    """

    def __init__(self, stream: TextIO, interrupted: Callable[[], bool]) -> None:
        self._stream, self._interrupted = stream, interrupted

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            if not self._interrupted():
                raise
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            if not self._interrupted():
                raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def print_last(text: str) -> None:
    """Print the last line of an interrupted run, to stderr if stdout is closed."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # buffered text would fail at exit
        say(text)
