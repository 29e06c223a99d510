"""Subprocesses with a timeout, the reason of a failure, and the files that they write."""

import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

TOOLS = Path(__file__).resolve().parents[1]
# Exit code of a command that Ctrl-C stopped.
INTERRUPTED = 130


def subprocess_env(folder: Path) -> dict[str, str]:
    """Return environment variables for a process that imports xtune and these tools; its cache is in `folder`."""
    existing = [os.path.abspath(path) for path in os.environ.get('PYTHONPATH', '').split(os.pathsep) if path]
    paths = os.pathsep.join([str(TOOLS), str(TOOLS.parent), *existing])
    return os.environ | dict(PYTHONPATH=paths, XTUNE_CACHE=str(folder / 'cache'))


def run_with_timeout(
    command: list[str],
    log: Path,
    env: dict[str, str],
    timeout: float,
    cwd: Path | None = None,
    stdout: Path | None = None,
) -> int | None:
    """Run `command` and return its exit code, or None if it took more than `timeout` seconds.

    Its output goes to the file `log`, but stdout goes to the file `stdout` if it is given. After a timeout or an
    interruption, the command and all its children are killed.
    """
    with log.open('wb') as log_file, stdout.open('wb') if stdout else nullcontext(log_file) as stdout_file:
        process = subprocess.Popen(
            command, stdout=stdout_file, stderr=log_file, env=env, cwd=cwd, start_new_session=True
        )
        try:
            return process.wait(timeout)
        except BaseException as error:  # includes Ctrl-C, which does not reach a process in a new session
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                return None
            raise


def failure_reason(code: int | None, log: Path, steps: int | None = None) -> str:
    """Return the exit code or timeout of a process, its number of optimizer `steps` if given, and its last log line."""
    last_line = log.read_text(encoding='utf-8', errors='replace').strip().splitlines()[-1:]
    reason = 'timeout' if code is None else f'exit code {code}'
    after = '' if steps is None else f' after {steps} steps'
    return f'{reason}{after}; last log line: {next(iter(last_line), "none")[:200]}'


def read_json_lines(path: Path) -> list[Any]:
    """Return the values of a JSON lines file, without an incomplete last line; an empty list if the file is missing."""
    if not path.exists():
        return []
    lines = path.read_text(encoding='utf-8', errors='replace').splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith('\n')]


def writable_folder(folder: Path) -> Path:
    """Create `folder` if needed and return its absolute path; exit with an error if it is not writable."""
    absolute = folder.expanduser().resolve()
    try:
        absolute.mkdir(parents=True, exist_ok=True)
        probe = absolute / '.write_test'
        probe.touch()
        probe.unlink()
    except OSError as error:
        exit_with_error(f'{folder} is not writable: {error.strerror or error}; choose another folder')
    return absolute


def exit_with_error(message: str) -> NoReturn:
    """Exit with a message and code 2, like argparse."""
    print(f'error: {message}', file=sys.stderr)
    sys.exit(2)
