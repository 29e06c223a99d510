"""Checkpoint files: written aside and renamed, loaded without executing code, verified before use.

A checkpoint is a .pth whose content is tensors and plain Python values:

    state_dict  what is trained: adapter tensors in peft's names, or all weights
    optimizer   the optimizer's state
    rng         random number generators of this process
    meta        iter, epoch, plan, config (text), export (what a Hugging Face folder needs, see models/export.py)
"""

import os
import pickle
import random
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ..atomic import write_text
from ..errors import CheckpointError

POINTER = 'last_checkpoint'
_OWN_NAME = re.compile(r'(iter|epoch)_\d+\.pth')


def save(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint; `path` is either whole or not there.

    Raises:
        CheckpointError: It could not be written (disk full, no permission); nothing is left behind.
    """
    aside = path.with_name(f'.{path.name}.tmp')
    try:
        with aside.open('wb') as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        raise write_error(path, error) from error
    finally:
        aside.unlink(missing_ok=True)


def write_error(path: Path, error: Exception) -> CheckpointError:
    """Return the error that says what could not be written, and how much room there is."""
    reason = error.__context__ if isinstance(error.__context__, OSError) else error  # what lies below torch's words
    free = shutil.disk_usage(path.parent).free / 2**20 if path.parent.exists() else 0
    return CheckpointError(
        f'{path} could not be written: {str(reason).splitlines()[0]} ({free:,.0f} MiB free there). '
        'Earlier checkpoints are untouched; make room, or set checkpoint.keep or --work-dir, and go on with --resume.'
    )


@contextmanager
def folder_aside(folder: Path) -> Iterator[Path]:
    """Give a new folder to write into; it takes `folder`'s place only if the block succeeds."""
    aside = folder.with_name(f'.{folder.name}.tmp')
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        yield aside
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(aside, folder)
    except (OSError, SafetensorError) as error:
        raise write_error(folder, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def load(path: Path, verified: bool = False) -> dict[str, Any]:
    """Return the content of a checkpoint, after checking it whole. Code in it is never executed.

    With `verified`, the checksums are not read again: this process has loaded the file before.

    Raises:
        CheckpointError: There is no such file, it is damaged or cut off, contains code, or is no xtune checkpoint.
    """
    if not path.exists():
        near = sorted(p.name for p in path.parent.glob('*.pth')) if path.parent.is_dir() else []
        raise CheckpointError(f'checkpoint {path} does not exist' + (f'; there are {", ".join(near)}' if near else ''))
    if path.is_dir():
        raise CheckpointError(f'{path} is a folder, not a .pth file')
    try:
        with zipfile.ZipFile(path) as archive:
            broken = None if verified else archive.testzip()
    except (zipfile.BadZipFile, OSError) as error:
        raise CheckpointError(f'checkpoint {path} is damaged or cut off ({error}); use an earlier one') from error
    if broken:
        raise CheckpointError(f'checkpoint {path} is damaged: {broken} fails its checksum; use an earlier one')
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        what = next((line.strip() for line in str(error).splitlines() if 'GLOBAL' in line or 'Unsupported' in line), '')
        raise CheckpointError(
            f'{path} was refused: loading it would execute code, which a checkpoint of weights does not need. {what}'
        ) from error
    except (RuntimeError, EOFError, KeyError) as error:
        raise CheckpointError(f'checkpoint {path} cannot be read: {str(error).splitlines()[0]}') from error
    missing = {'state_dict', 'meta'} - set(content) if isinstance(content, dict) else {'state_dict', 'meta'}
    if missing or 'export' not in content['meta']:
        raise CheckpointError(
            f'{path} is no checkpoint of xtune: it has no {", ".join(sorted(missing)) or "meta.export"}'
        )
    return content


def candidates(work_dir: Path) -> list[Path]:
    """Return the checkpoints that runs wrote, newest first; other .pth files are the user's."""
    own = [p for p in work_dir.glob('*.pth') if _OWN_NAME.fullmatch(p.name)]
    return sorted(own, key=lambda p: (p.stat().st_mtime_ns, p.name), reverse=True)


def point_to(path: Path) -> None:
    """Let `last_checkpoint` name `path`; call it only after `path` is whole."""
    write_text(path.parent / POINTER, path.name + '\n')


def rng_state() -> dict[str, Any]:
    """Return the state of every random number generator that training uses."""
    version, numbers, gauss = random.getstate()
    state = dict(torch=torch.get_rng_state(), python=[version, list(numbers), gauss])
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Put the generators back into `state`."""
    torch.set_rng_state(state['torch'])
    version, numbers, gauss = state['python']
    random.setstate((version, tuple(numbers), gauss))
    if 'cuda' in state and len(state['cuda']) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state['cuda'])
