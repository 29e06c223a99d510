"""Processes that start together on a new machine do not fail at a cache file that is not finished."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

IMPORT = [sys.executable, '-c', 'import xtune, mmengine.config; print("imported")']


@pytest.fixture
def cache(tmp_path):
    """The environment of a user who has imported yapf once, and the files of its cache."""
    env = {**os.environ, 'HOME': str(tmp_path), 'XDG_CACHE_HOME': str(tmp_path / 'cache')}
    subprocess.run(IMPORT, env=env, check=True)
    files = {path: path.read_bytes() for path in (tmp_path / 'cache' / 'YAPF').rglob('*.pickle')}
    assert len(files) == 2
    return env, files


def test_the_reader_waits_for_a_file_that_is_being_written(cache):
    env, files = cache
    for path, content in files.items():
        path.write_bytes(content[: len(content) // 2])
    process = subprocess.Popen(IMPORT, env=env, stdout=subprocess.PIPE, text=True)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.4)
    for path, content in files.items():
        path.write_bytes(content)
    assert process.communicate(timeout=60)[0] == 'imported\n'
    assert {path: path.read_bytes() for path in files} == files


@pytest.mark.parametrize('share', [0, 0.5])
def test_incomplete_file_is_recreated(cache, share):
    env, files = cache
    for path, content in files.items():
        path.write_bytes(content[: int(share * len(content))])
    assert subprocess.run(IMPORT, env=env, capture_output=True, text=True).stdout == 'imported\n'
    assert all(path.stat().st_size == len(content) for path, content in files.items())


def test_concurrent_processes_repair_the_cache(cache):
    env, files = cache
    for path in files:
        path.write_bytes(b'')
    together = [subprocess.Popen(IMPORT, env=env, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate(timeout=60)[0] for process in together] == ['imported\n'] * 4


def test_mmengine_without_the_repair_fails(cache):
    """When this fails, yapf has mended it, and xtune/utils/yapf_cache.py can go."""
    env, files = cache
    for path in files:
        path.write_bytes(b'')
    alone = subprocess.run([sys.executable, '-c', 'import mmengine.config'], env=env, capture_output=True, text=True)
    assert 'EOFError' in alone.stderr
