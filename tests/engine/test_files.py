"""Checkpoint files: whole or not there, and never executed."""

import os
import pickle
import subprocess
import sys

import pytest
import torch

from xtune.engine import files
from xtune.errors import CheckpointError

CONTENT = dict(state_dict={'w': torch.arange(1000.0)}, meta=dict(export={}, iter=3))


class Evil:
    def __reduce__(self):
        return os.system, ('touch PWNED',)


def test_saved_content_comes_back(tmp_path):
    files.save(CONTENT, tmp_path / 'iter_3.pth')
    assert torch.equal(files.load(tmp_path / 'iter_3.pth')['state_dict']['w'], CONTENT['state_dict']['w'])
    assert [p.name for p in tmp_path.iterdir()] == ['iter_3.pth']


def test_file_takes_the_place_of_parts_and_the_other_way_round(tmp_path):
    path = tmp_path / 'iter_3.pth'
    for aside in (path, tmp_path / '.iter_3.pth.tmp'):  # of a run that was killed
        aside.mkdir()
        (aside / files.part_name(0, 2)).touch()
    files.save(CONTENT, path)
    assert path.is_file()
    files.save_part(CONTENT, path)
    assert [p.name for p in path.iterdir()] == [files.part_name(0, 1)]
    assert files.load(path)['meta']['iter'] == 3 and [p.name for p in tmp_path.iterdir()] == ['iter_3.pth']


def test_code_in_a_pth_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(CONTENT, extra=Evil()), tmp_path / 'evil.pth')
    with pytest.raises(CheckpointError, match='would execute code'):
        files.load(tmp_path / 'evil.pth')
    (tmp_path / 'old.pth').write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match='damaged|refused'):
        files.load(tmp_path / 'old.pth')
    assert not (tmp_path / 'PWNED').exists()


def test_damage_is_found(tmp_path):
    path = tmp_path / 'iter_3.pth'
    files.save(CONTENT, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match='iter_3.pth is damaged or cut off'):
        files.load(path)
    middle = whole.index(torch.arange(1000.0).numpy().tobytes()) + 40
    path.write_bytes(whole[:middle] + b'\xff' + whole[middle + 1 :])
    with pytest.raises(CheckpointError, match='checksum'):
        files.load(path)


def test_something_else_is_no_checkpoint(tmp_path):
    torch.save({'a': 1}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='no checkpoint of xtune'):
        files.load(tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='does not exist; there are a.pth'):
        files.load(tmp_path / 'b.pth')


def test_full_disk_leaves_nothing_half_written(tmp_path):
    """A limit on the size of files makes the real write fail, as a full disk would."""
    program = (
        'import resource, signal, sys, torch\n'
        'from pathlib import Path\n'
        'from xtune.engine import files\n'
        'signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n'
        'resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))\n'
        'files.save(dict(state_dict={"w": torch.zeros(1_000_000)}, meta={}), Path(sys.argv[1]))\n'
    )
    files.save(CONTENT, tmp_path / 'iter_1.pth')
    done = subprocess.run([sys.executable, '-c', program, tmp_path / 'iter_2.pth'], capture_output=True, text=True)
    assert done.returncode != 0 and 'CheckpointError' in done.stderr and 'could not be written' in done.stderr
    assert 'MiB free' in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ['iter_1.pth']


def test_random_numbers_go_on_after_restoring():
    state = files.rng_state()
    first = torch.rand(3)
    files.set_rng_state(state)
    assert torch.equal(torch.rand(3), first)
