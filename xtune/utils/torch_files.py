"""Check memory-mapped torch files: every tensor must be completely in the file.

torch checks this only if it reads a file without mmap. With mmap, a truncated tensor would contain the bytes of the
next tensor.
"""

import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


def refuse_short(path: Path, content: Any) -> None:
    """Check that the storages of `content`, which torch memory-mapped from `path`, are completely in the file.

    Raises:
        RuntimeError: A storage is larger than its data in the file.
    """
    if not zipfile.is_zipfile(path):  # torch before 1.6: read without mmap
        return
    with zipfile.ZipFile(path) as archive:
        stored_sizes = Counter(part.file_size for part in archive.infolist() if '/data/' in part.filename)
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in _tensors(content)}
    short = Counter(size for size in storages.values() if size) - stored_sizes
    if short:
        raise RuntimeError(f'{sum(short.values())} of its tensors are larger than their data in the file')


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        if value.layout == torch.strided:
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
