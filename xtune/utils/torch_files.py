"""Files of torch that are mapped into memory: whether each tensor has the bytes that the file says it has.

torch compares the two only if it reads a file at once; of a mapped one, a tensor would hold the bytes of its neighbour.
"""

import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


def refuse_short(path: Path, content: Any) -> None:
    """Refuse the file `path`, whose `content` torch mapped, if a tensor is larger than its bytes in the file.

    Raises:
        RuntimeError: There is such a tensor.
    """
    if not zipfile.is_zipfile(path):  # torch before 1.6: read at once
        return
    with zipfile.ZipFile(path) as archive:
        held = Counter(part.file_size for part in archive.infolist() if '/data/' in part.filename)
    claimed = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in _tensors(content)}
    short = Counter(size for size in claimed.values() if size) - held
    if short:
        raise RuntimeError(f'{sum(short.values())} of its tensors are larger than what the file holds of them')


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        if value.layout == torch.strided:
            yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)
