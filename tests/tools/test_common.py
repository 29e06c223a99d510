"""tools/common: processes end with the tool that began them, and what they were writing is read as far as it goes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'
# Begins a process that begins another one and writes both numbers; waits for it.
WAITS = """
import signal, sys
from pathlib import Path
from common.process import environment, in_time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a script runs in the background
folder = Path(sys.argv[1])
child = 'import os, subprocess; p = subprocess.Popen(["sleep", "60"]); print(os.getpid(), p.pid, flush=True); p.wait()'
in_time([sys.executable, '-c', child], folder / 'log.txt', environment(folder), 60)
"""


@pytest.fixture(scope='module')
def process(tool):
    """The module."""
    return tool('common.process')


def alive(number):
    try:
        state = Path(f'/proc/{number}/stat').read_text('utf-8').rpartition(')')[2].split()[0]
    except OSError:
        return False
    return state != 'Z'


def until(holds):
    end = time.monotonic() + 20
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    assert holds()


def test_ctrl_c_ends_all_that_runs(tmp_path):
    tool = subprocess.Popen(
        [sys.executable, '-c', WAITS, str(tmp_path)],
        env=os.environ | dict(PYTHONPATH=str(TOOLS)),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    log = tmp_path / 'log.txt'
    until(lambda: log.exists() and log.read_text('utf-8').endswith('\n'))
    numbers = log.read_text('utf-8').split()
    assert len(numbers) == 2 and all(map(alive, numbers))
    tool.send_signal(signal.SIGINT)
    assert tool.wait(20) != 0
    until(lambda: not any(map(alive, numbers)))


def test_a_process_that_takes_too_long_is_ended(process, tmp_path):
    began = time.monotonic()
    assert process.in_time(['sleep', '60'], tmp_path / 'log.txt', dict(os.environ), 0.1) is None
    assert time.monotonic() - began < 10
    assert process.in_time(['sh', '-c', 'echo no; exit 3'], tmp_path / 'log.txt', dict(os.environ), 20) == 3
    assert process.why(3, tmp_path / 'log.txt') == 'exit code 3; its last words: no'


def test_lines_are_read_as_far_as_they_are_whole(process, tmp_path):
    path = tmp_path / 'lines.jsonl'
    assert process.json_lines(path) == []
    path.write_text('{"a": 1}\n{"a": 2}\n{"a"', encoding='utf-8')
    assert process.json_lines(path) == [{'a': 1}, {'a': 2}]
    path.write_text('{"a"\n', encoding='utf-8')
    with pytest.raises(ValueError):
        process.json_lines(path)


def test_a_folder_is_made_or_named(process, tmp_path, capsys):
    assert process.made(tmp_path / 'a' / 'b') == tmp_path / 'a' / 'b' and not list((tmp_path / 'a' / 'b').iterdir())
    (tmp_path / 'file').touch()
    with pytest.raises(SystemExit) as stopped:
        process.made(tmp_path / 'file')
    assert stopped.value.code == 2 and str(tmp_path / 'file') in capsys.readouterr().err
