"""Checkpoint files: their content, loading without executing code, verification. `checkpoint_writer.py` writes them.

A checkpoint is a .pth file with tensors and plain Python values. Distributed full fine-tuning writes a folder of that
name with one shard per rank, and `load` merges the shards without reading the tensors. The content:

    state_dict  the trained weights: adapter tensors under peft's names, or all weights
    optimizer   the optimizer state, by number of the parameter
    initial_adapter  only if the adapter was initialized from the base weights (see methods/residual_init.py)
    rng         the states of the random number generators of each rank, in order
    meta        iter, epoch, plan, config (text), export (what a Hugging Face folder needs, see hf_format/writer.py)
"""

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
_SHARD = re.compile(r'part_(\d+)_of_(\d+)\.pth')
_CHECKPOINT_NAME = re.compile(r'(iter|epoch)_\d+\.pth')


def remove_path(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_partial_files(work_dir: Path) -> None:
    """Remove incomplete files of a killed run, which may be as large as a checkpoint."""
    for path in [*work_dir.glob('.*.pth.tmp'), *work_dir.glob('.*_hf.tmp')]:
        remove_path(path)


def load(path: Path, verified: bool = False) -> dict[str, Any]:
    """Return the content of a checkpoint after verifying it. Code in it is never executed.

    Args:
        path: A file, or a folder of shards.
        verified: Skip the checksums, because this rank or another one of this host reads them.

    Raises:
        CheckpointError: The file does not exist, is damaged or truncated, contains code, or is not an xtune checkpoint.
    """
    if not path.exists():
        names = sorted(p.name for p in path.parent.glob('*.pth')) if path.parent.is_dir() else []
        others = f'; its folder contains {", ".join(names)}' if names else ''
        raise CheckpointError(f'checkpoint {path} does not exist{others}')
    if path.is_dir():
        return _merge_shards(path, verified)
    _check_archive(path, verified)
    content = _read(path)
    missing = {'state_dict', 'meta'} - set(content) if isinstance(content, dict) else {'state_dict', 'meta'}
    if missing or not isinstance(content['meta'], dict) or 'export' not in content['meta']:
        raise CheckpointError(
            f'{path} is not an xtune checkpoint: it has no {", ".join(sorted(missing)) or "meta.export"}'
        )
    return content


def _check_archive(path: Path, verified: bool) -> None:
    """Open the zip archive `path`; verify its checksums unless they are `verified`.

    Raises:
        CheckpointError: The archive is damaged or truncated.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged_member = None if verified else archive.testzip()
    # RuntimeError: encrypted; NotImplementedError: unknown compression.
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
        raise CheckpointError(f'checkpoint {path} is damaged or truncated ({error}); use an earlier one') from error
    if damaged_member:
        raise CheckpointError(
            f'checkpoint {path} is damaged: the checksum of {damaged_member} does not match; use an earlier one'
        )


def _read(path: Path) -> Any:
    """Return the content of the file `path` with memory-mapped tensors.

    Raises:
        CheckpointError: The file is damaged or contains code.
    """
    try:
        # Memory-mapped: a tensor is read when it is used, and only once for all ranks of a host.
        content = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
        refuse_short(path, content)
    except Exception as error:  # reading an invalid pickle can raise almost any exception
        code = code_in(error)
        if code:
            raise CheckpointError(
                f'{path} was refused: loading it would execute code ({code}), which a checkpoint does not need. Use a '
                'checkpoint that xtune wrote'
            ) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f'checkpoint {path} is damaged ({reason}); use an earlier one') from error
    return content


def shard_name(rank: int, size: int) -> str:
    """Return the file name of the shard of `rank` in a checkpoint folder of `size` ranks."""
    return f'part_{rank:05}_of_{size:05}.pth'


def _merge_shards(folder: Path, verified: bool) -> dict[str, Any]:
    """Return the content of all shards in `folder` as one checkpoint.

    Raises:
        CheckpointError: All or some shards are missing.
    """
    paths, sizes = {}, set()
    for path in folder.iterdir():
        if match := _SHARD.fullmatch(path.name):
            paths[int(match[1])] = path
            sizes.add(int(match[2]))
    if not paths:
        raise CheckpointError(f'{folder} contains no checkpoint shards; give a .pth that xtune wrote')
    if len(sizes) > 1:
        counts = ' and '.join(map(str, sorted(sizes)))
        raise CheckpointError(f'{folder} contains shards of runs with {counts} ranks; use another checkpoint')
    (size,) = sizes
    missing = sorted(set(range(size)) - set(paths))
    if missing:
        names = ', '.join(shard_name(rank, size) for rank in missing[:5])
        raise CheckpointError(f'{folder} is incomplete: {names} is missing; use an earlier checkpoint')
    shards = [load(paths[rank], verified) for rank in sorted(paths)]
    content = shards[0]
    for shard in shards[1:]:
        content['state_dict'] |= shard['state_dict']
        content['optimizer'] |= shard['optimizer']
    return content


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint, file or folder, and the exported adapter beside it."""
    remove_path(path)
    shutil.rmtree(path.with_name(f'{path.stem}_hf'), ignore_errors=True)


def candidates(work_dir: Path) -> list[Path]:
    """Return the checkpoints that runs wrote, newest first; other .pth files belong to the user."""
    checkpoints = [p for p in work_dir.glob('*.pth') if _CHECKPOINT_NAME.fullmatch(p.name)]
    return sorted(checkpoints, key=lambda p: (p.stat().st_mtime_ns, p.name), reverse=True)


def write_pointer(path: Path) -> None:
    """Write the name of the complete checkpoint `path` into the file `last_checkpoint`."""
    write_text(path.parent / POINTER, path.name + '\n')
