"""Write tensors as safetensors files of limited size."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from ..errors import ConfigError
from ..hf_format.writer import unshared

_UNITS = {'KB': 10**3, 'MB': 10**6, 'GB': 10**9, 'KIB': 2**10, 'MIB': 2**20, 'GIB': 2**30}
INDEX = 'model.safetensors.index.json'


@dataclass(frozen=True)
class Shards:
    """The written files.

    Attributes:
        files: File name -> names of its tensors.
        tensor_bytes: Bytes of all tensors.
    """

    files: dict[str, list[str]]
    tensor_bytes: int

    @property
    def weight_map(self) -> dict[str, str]:
        """Tensor name -> file name, for the index."""
        return {name: file for file, names in self.files.items() for name in names}


def parse_size(text: str) -> int:
    """Return the number of bytes of '2GB', '500MiB' or a plain number.

    Raises:
        ConfigError: `text` has another form.
    """
    match = re.fullmatch(r'\s*(\d+(?:\.\d+)?)\s*([KMG]I?B)?\s*', text.upper())
    if not match or float(match[1]) * _UNITS.get(match[2], 1) < 1:
        raise ConfigError(f'--max-shard-size takes a size such as 2GB or 500MB, got `{text}`')
    return int(float(match[1]) * _UNITS.get(match[2], 1))


def write_shards(folder: Path, tensors: Iterable[tuple[str, torch.Tensor]], max_bytes: int) -> Shards:
    """Write files of at most `max_bytes` of tensors; a larger tensor gets a separate file.

    Only the tensors of one file are in memory at a time.
    """
    written: list[list[str]] = []
    pending: dict[str, torch.Tensor] = {}
    total = size = 0

    def flush() -> None:
        save_file(unshared(pending), folder / f'shard-{len(written)}.safetensors', metadata={'format': 'pt'})
        written.append(list(pending))
        pending.clear()

    for name, tensor in tensors:
        if pending and size + tensor.nbytes > max_bytes:
            flush()
            size = 0
        pending[name] = tensor
        size += tensor.nbytes
        total += tensor.nbytes
    flush()
    files = {f'model-{i + 1:05d}-of-{len(written):05d}.safetensors': names for i, names in enumerate(written)}
    for i, file in enumerate(files):
        (folder / f'shard-{i}.safetensors').rename(folder / file)
    return Shards(files, total)
