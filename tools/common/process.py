"""Runs as processes of their own: where they find things, how long they may take, why they ended."""

import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

TOOLS = Path(__file__).resolve().parents[1]
# What a shell says of a command that Ctrl-C ended.
INTERRUPTED = 130


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a process that finds xtune and these tools, with a cache in `folder`."""
    given = [os.path.abspath(path) for path in os.environ.get('PYTHONPATH', '').split(os.pathsep) if path]
    paths = os.pathsep.join([str(TOOLS), str(TOOLS.parent), *given])
    return os.environ | dict(PYTHONPATH=paths, XTUNE_CACHE=str(folder / 'cache'))


def in_time(
    command: list[str],
    log: Path,
    environment: dict[str, str],
    timeout: float,
    current: Path | None = None,
    output: Path | None = None,
) -> int | None:
    """Run `command`, what it says to `log`; return its exit code, None if it took more than `timeout` seconds.

    Its current folder is `current`, by default that of this process. What it prints to stdout goes to `output`, if that
    is given. If this call is interrupted, it is ended with all
    that it started.
    """
    with log.open('wb') as file, output.open('wb') if output else nullcontext(file) as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=file, env=environment, cwd=current, start_new_session=True
        )
        try:
            return process.wait(timeout)
        except BaseException as error:  # Ctrl-C too, which does not reach a session of its own
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                return None
            raise


def why(code: int | None, log: Path, steps: int | None = None) -> str:
    """Return why a process ended, after `steps` steps if that is known, with its last words."""
    last = log.read_text(encoding='utf-8', errors='replace').strip().splitlines()[-1:]
    reason = 'took too long' if code is None else f'exit code {code}'
    after = '' if steps is None else f' after {steps} steps'
    return f'{reason}{after}; its last words: {next(iter(last), "nothing")[:200]}'


def json_lines(path: Path) -> list[Any]:
    """Return the values in the lines of `path`, without a last line that was never finished; none if it is missing."""
    if not path.exists():
        return []
    lines = path.read_text(encoding='utf-8', errors='replace').splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith('\n')]


def made(folder: Path) -> Path:
    """Return the whole path of `folder`, which is there after this; ends the program if it cannot be written."""
    whole = folder.expanduser().resolve()
    try:
        whole.mkdir(parents=True, exist_ok=True)
        trial = whole / '.trial'
        trial.touch()
        trial.unlink()
    except OSError as error:
        fail(f'{folder} cannot be written to: {error.strerror or error}; name another folder')
    return whole


def fail(message: str) -> NoReturn:
    """End the program with an error of the user's: exit code 2, as argparse's."""
    print(f'error: {message}', file=sys.stderr)
    sys.exit(2)
