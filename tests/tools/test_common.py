"""tools/common: subprocesses are killed with the tool, and incomplete files can be read."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'
# Starts a process, which starts another one, writes both process ids and waits.
TWO_PROCESSES = """
import signal, sys
from pathlib import Path
from common.subprocesses import run_with_timeout, subprocess_env
signal.signal(signal.SIGINT, signal.default_int_handler)  # background processes of a script ignore it
folder = Path(sys.argv[1])
child = 'import os, subprocess; p = subprocess.Popen(["sleep", "60"]); print(os.getpid(), p.pid, flush=True); p.wait()'
run_with_timeout([sys.executable, '-c', child], folder / 'log.txt', subprocess_env(folder), 60)
"""


@pytest.fixture(scope='module')
def process(tool):
    """The module."""
    return tool('common.subprocesses')


def is_running(pid):
    try:
        state = Path(f'/proc/{pid}/stat').read_text('utf-8').rpartition(')')[2].split()[0]
    except OSError:
        return False
    return state != 'Z'


def wait_until(condition):
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


def test_ctrl_c_kills_all_processes(tmp_path):
    tool = subprocess.Popen(
        [sys.executable, '-c', TWO_PROCESSES, str(tmp_path)],
        env=os.environ | dict(PYTHONPATH=str(TOOLS)),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    log = tmp_path / 'log.txt'
    wait_until(lambda: log.exists() and log.read_text('utf-8').endswith('\n'))
    pids = log.read_text('utf-8').split()
    assert len(pids) == 2 and all(map(is_running, pids))
    tool.send_signal(signal.SIGINT)
    assert tool.wait(20) != 0
    wait_until(lambda: not any(map(is_running, pids)))


def test_a_process_is_killed_after_the_timeout(process, tmp_path):
    start = time.monotonic()
    assert process.run_with_timeout(['sleep', '60'], tmp_path / 'log.txt', dict(os.environ), 0.1) is None
    assert time.monotonic() - start < 10
    assert process.run_with_timeout(['sh', '-c', 'echo no; exit 3'], tmp_path / 'log.txt', dict(os.environ), 20) == 3
    assert process.failure_reason(3, tmp_path / 'log.txt') == 'exit code 3; last log line: no'


def test_an_incomplete_last_line_is_ignored(process, tmp_path):
    path = tmp_path / 'lines.jsonl'
    assert process.read_json_lines(path) == []
    path.write_text('{"a": 1}\n{"a": 2}\n{"a"', encoding='utf-8')
    assert process.read_json_lines(path) == [{'a': 1}, {'a': 2}]
    path.write_text('{"a"\n', encoding='utf-8')
    with pytest.raises(ValueError):
        process.read_json_lines(path)


def test_a_folder_is_created_or_refused(process, tmp_path, capsys):
    folder = tmp_path / 'a' / 'b'
    assert process.writable_folder(folder) == folder and not list(folder.iterdir())
    (tmp_path / 'file').touch()
    with pytest.raises(SystemExit) as stopped:
        process.writable_folder(tmp_path / 'file')
    assert stopped.value.code == 2 and str(tmp_path / 'file') in capsys.readouterr().err
