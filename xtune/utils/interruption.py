"""What Ctrl-C and SIGTERM do to a run: an answer at once, and no save that fails because nobody reads its output."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

NOTHING_TO_SAVE = 'interrupted before the first optimizer step: there is nothing to save'


@contextmanager
def interrupted_as(text: Callable[[], str]) -> Iterator[None]:
    """Let a KeyboardInterrupt that says nothing yet say what `text` returns, which the command line prints."""
    try:
        yield
    except KeyboardInterrupt as error:
        if error.args:
            raise
        raise KeyboardInterrupt(text()) from None


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM raise a KeyboardInterrupt, so that files are closed and locks released."""

    def interrupt(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    with handling(interrupt, signal.SIGTERM):
        yield


@contextmanager
def handling(handler: Callable[[int, Any], None], *signals: signal.Signals) -> Iterator[None]:
    """Let `handler` take `signals`; in another thread than the main one whoever runs us handles them."""
    kept = {}
    try:
        with suppress(ValueError):  # not in the main thread
            for number in signals:
                kept[number] = signal.signal(number, handler)
        yield
    finally:
        for number, before in kept.items():
            signal.signal(number, before)


def say(text: str) -> None:
    """Write a line to the terminal, from a signal handler: around Python's buffers, which may be in use."""
    with suppress(OSError):
        os.write(2, f'\n{text}\n'.encode())


class Output:
    """A stream whose reader may be gone once `interrupted` is true, as Ctrl-C also ends the `tee` of a pipe.

    Args:
        stream: Where to write.
        interrupted: Tells whether the run was asked to stop. Before that a closed pipe is an error.
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
    """Print the last line of an interrupted run, to stderr if nobody reads stdout any more."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered fails at the exit
        say(text)
