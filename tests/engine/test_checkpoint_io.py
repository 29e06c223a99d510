"""Checkpoint files are complete or absent, and code in them is never executed."""

import os
import pickle
import re
import subprocess
import sys

import pytest
import torch

from xtune.engine import checkpoint_io, checkpoint_writer
from xtune.engine.checkpoint_writer import PendingCheckpoint
from xtune.engine.rng_state import get_rng_state, set_rng_state
from xtune.engine.strategies import Replicated
from xtune.engine.trained_state import TrainedState
from xtune.errors import CheckpointError

CONTENT = dict(state_dict={'w': torch.arange(1000.0)}, meta=dict(export={}, iter=3))


class ExecutesCode:
    def __reduce__(self):
        return os.system, ('touch PWNED',)


def test_saved_content_is_loaded(tmp_path):
    PendingCheckpoint(CONTENT, tmp_path / 'iter_3.pth').finish()
    assert torch.equal(checkpoint_io.load(tmp_path / 'iter_3.pth')['state_dict']['w'], CONTENT['state_dict']['w'])
    assert [p.name for p in tmp_path.iterdir()] == ['iter_3.pth']


def test_file_replaces_shards_and_vice_versa(tmp_path):
    path = tmp_path / 'iter_3.pth'
    for folder in (path, tmp_path / '.iter_3.pth.tmp'):  # left by a killed run
        folder.mkdir()
        (folder / checkpoint_io.shard_name(0, 2)).touch()
    PendingCheckpoint(CONTENT, path).finish()
    assert path.is_file()
    PendingCheckpoint(CONTENT, path, sharded=True).finish()
    assert [p.name for p in path.iterdir()] == [checkpoint_io.shard_name(0, 1)]
    assert checkpoint_io.load(path)['meta']['iter'] == 3 and [p.name for p in tmp_path.iterdir()] == ['iter_3.pth']


@pytest.mark.parametrize('sharded', [False, True])
def test_open_checkpoint_stays_readable_after_its_removal(sharded, tmp_path):
    """`checkpoint.keep` of a live run removes a checkpoint that is being converted."""
    path = tmp_path / 'iter_3.pth'
    PendingCheckpoint(CONTENT | dict(optimizer={}), path, sharded=sharded).finish()
    content = checkpoint_io.load(path)
    checkpoint_io.remove_checkpoint(path)
    assert not path.exists() and torch.equal(content['state_dict']['w'], CONTENT['state_dict']['w'])


def test_code_in_a_pth_is_refused_and_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(CONTENT, extra=ExecutesCode()), tmp_path / 'evil.pth')
    with pytest.raises(CheckpointError, match='would execute code'):
        checkpoint_io.load(tmp_path / 'evil.pth')
    (tmp_path / 'old.pth').write_bytes(pickle.dumps(ExecutesCode()))
    with pytest.raises(CheckpointError, match='damaged|refused'):
        checkpoint_io.load(tmp_path / 'old.pth')
    assert not (tmp_path / 'PWNED').exists()


def test_damage_is_detected(tmp_path):
    path = tmp_path / 'iter_3.pth'
    PendingCheckpoint(CONTENT, path).finish()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match='iter_3.pth'):
        checkpoint_io.load(path)
    middle = content.index(torch.arange(1000.0).numpy().tobytes()) + 40
    path.write_bytes(content[:middle] + b'\xff' + content[middle + 1 :])
    with pytest.raises(CheckpointError, match='checksum'):
        checkpoint_io.load(path)


def test_other_files_are_refused(tmp_path, golden):
    torch.save({'a': 1}, tmp_path / 'a.pth')
    messages = {}
    for name in ('a.pth', 'b.pth'):
        with pytest.raises(CheckpointError) as caught:
            checkpoint_io.load(tmp_path / name)
        messages[name] = caught.value
    golden('checkpoint.not_one', messages)


@pytest.mark.parametrize('background', [False, True])
def test_full_disk_leaves_no_partial_file(tmp_path, background):
    """A file size limit makes the write fail like a full disk."""
    program = (
        'import resource, signal, sys, torch\n'
        'from pathlib import Path\n'
        'from xtune.engine.checkpoint_writer import PendingCheckpoint\n'
        'signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n'
        'resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))\n'
        'background = sys.argv[2] == "True"\n'
        'content = dict(state_dict={"w": torch.zeros(1_000_000)}, meta={})\n'
        'PendingCheckpoint(content, Path(sys.argv[1]), background=background).finish()\n'
    )
    PendingCheckpoint(CONTENT, tmp_path / 'iter_1.pth').finish()
    command = [sys.executable, '-c', program, tmp_path / 'iter_2.pth', str(background)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0 and 'CheckpointError' in done.stderr and 'iter_2.pth' in done.stderr
    assert re.search(r'\d MiB', done.stderr)
    assert [p.name for p in tmp_path.iterdir()] == ['iter_1.pth']


def test_written_file_is_verified(tmp_path, monkeypatch):
    """The file does not contain the tensors that were written."""
    original_save = torch.save
    monkeypatch.setattr(
        checkpoint_writer.torch, 'save', lambda content, file: original_save({**content, 'state_dict': {}}, file)
    )
    with pytest.raises(CheckpointError, match='iter_3.pth'):
        PendingCheckpoint(CONTENT, tmp_path / 'iter_3.pth').finish()
    assert not list(tmp_path.iterdir())


def test_tensor_gathered_with_a_wrong_shape_is_not_saved():
    """ZeRO-3 replaces a weight by an empty tensor."""

    class Sharded(Replicated):
        def full_tensor(self, parameter):
            return parameter.new_empty(0) if parameter.dim() == 1 else parameter

    with pytest.raises(CheckpointError, match=r'bias .*\(3,\).*\(0,\)'):
        TrainedState(torch.nn.Linear(2, 3), Sharded()).get()


def test_random_numbers_continue_after_restoring():
    state = get_rng_state()
    first = torch.rand(3)
    set_rng_state(state)
    assert torch.equal(torch.rand(3), first)
