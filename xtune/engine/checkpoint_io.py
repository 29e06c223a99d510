"""Checkpoint files: their content, loading without executing code, verification. `checkpoint_writer.py` writes them.

A checkpoint is a .pth whose content is tensors and plain Python values. After full fine-tuning in several processes it
is a folder of that name, one part from each, and `load` joins them without reading the tensors:

    state_dict  what is trained: adapter tensors in peft's names, or all weights
    optimizer   the optimizer's state
    initial_adapter  only if the adapter started as a part of the base (see methods/residual_init.py)
    rng         random number generators of each process, in order of rank
    meta        iter, epoch, plan, config (text), export (what a Hugging Face folder needs, see hf_format/writer.py)
"""

import random
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from ..models.loading.weight_files import code_in
from ..utils.atomic import write_text
from ..utils.torch_files import refuse_short

POINTER = 'last_checkpoint'
_PART = re.compile(r'part_(\d+)_of_(\d+)\.pth')
_OWN_NAME = re.compile(r'(iter|epoch)_\d+\.pth')


def remove_path(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_partial_files(work_dir: Path) -> None:
    """Remove partial files of a killed run, which may be as large as a checkpoint."""
    for path in [*work_dir.glob('.*.pth.tmp'), *work_dir.glob('.*_hf.tmp')]:
        remove_path(path)


def load(path: Path, verified: bool = False) -> dict[str, Any]:
    """Return the content of a checkpoint, after checking it whole. Code in it is never executed.

    With `verified`, the checksums are not read: this process did so before, or another one of this host does.

    Raises:
        CheckpointError: There is no such file, it is damaged or cut off, contains code, or is no xtune checkpoint.
    """
    if not path.exists():
        near = sorted(p.name for p in path.parent.glob('*.pth')) if path.parent.is_dir() else []
        raise CheckpointError(f'checkpoint {path} does not exist' + (f'; there are {", ".join(near)}' if near else ''))
    if path.is_dir():
        return _joined(path, verified)
    try:
        with zipfile.ZipFile(path) as archive:
            broken = None if verified else archive.testzip()
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:  # the last two: encrypted, packed
        raise CheckpointError(f'checkpoint {path} is damaged or cut off ({error}); use an earlier one') from error
    if broken:
        raise CheckpointError(f'checkpoint {path} is damaged: {broken} fails its checksum; use an earlier one')
    try:
        # Mapped: tensors are read when they are used, and by several processes of a host once.
        content = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
        refuse_short(path, content)
    except Exception as error:  # bytes that are no pickle raise nearly anything while they are read
        code = code_in(error)
        if code:
            raise CheckpointError(
                f'{path} was refused: loading it would execute code ({code}), which a checkpoint of weights does not '
                'need. Use one that xtune wrote'
            ) from error
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f'checkpoint {path} is damaged ({first}); use an earlier one') from error
    missing = {'state_dict', 'meta'} - set(content) if isinstance(content, dict) else {'state_dict', 'meta'}
    if missing or not isinstance(content['meta'], dict) or 'export' not in content['meta']:
        raise CheckpointError(
            f'{path} is no checkpoint of xtune: it has no {", ".join(sorted(missing)) or "meta.export"}'
        )
    return content


def part_name(rank: int, size: int) -> str:
    """Return the file name of a rank's part of a checkpoint folder."""
    return f'part_{rank:05}_of_{size:05}.pth'


def _joined(folder: Path, verified: bool) -> dict[str, Any]:
    """Return the concatenated content of all parts in `folder`.

    Raises:
        CheckpointError: It holds no parts, or not all of them.
    """
    found = {int(match[1]): (path, int(match[2])) for path in folder.iterdir() if (match := _PART.fullmatch(path.name))}
    sizes = {size for _, size in found.values()}
    if not found:
        raise CheckpointError(f'{folder} is a folder without parts of a checkpoint; name a .pth that xtune wrote')
    missing = sorted(set(range(max(sizes))) - set(found))
    if missing or len(sizes) > 1:
        names = ', '.join(part_name(rank, max(sizes)) for rank in missing[:5]) or 'parts that belong together'
        raise CheckpointError(f'{folder} lacks {names}; use an earlier checkpoint')
    parts = [load(found[rank][0], verified) for rank in sorted(found)]
    content = parts[0]
    for part in parts[1:]:
        content['state_dict'] |= part['state_dict']
        content['optimizer'] |= part['optimizer']
    return content


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint, file or folder, and the adapter beside it."""
    remove_path(path)
    shutil.rmtree(path.with_name(f'{path.stem}_hf'), ignore_errors=True)


def candidates(work_dir: Path) -> list[Path]:
    """Return the checkpoints that runs wrote, newest first; other .pth files are the user's."""
    own = [p for p in work_dir.glob('*.pth') if _OWN_NAME.fullmatch(p.name)]
    return sorted(own, key=lambda p: (p.stat().st_mtime_ns, p.name), reverse=True)


def write_pointer(path: Path) -> None:
    """Write `path` to the file `last_checkpoint`; call it only once `path` is complete."""
    write_text(path.parent / POINTER, path.name + '\n')


def rng_state() -> dict[str, Any]:
    """Return the state of every random number generator that this rank uses in training."""
    version, numbers, gauss = random.getstate()
    state = dict(torch=torch.get_rng_state(), python=[version, list(numbers), gauss])
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore the generators to `state`."""
    torch.set_rng_state(state['torch'])
    version, numbers, gauss = state['python']
    random.setstate((version, tuple(numbers), gauss))
    if 'cuda' in state and torch.cuda.is_available():
        own = state['cuda']
        if isinstance(own, list):  # of all GPUs, before a process saved that of its own
            own = own[torch.cuda.current_device() % len(own)]
        torch.cuda.set_rng_state(own)
