"""`xtune convert split`: write a model folder again with smaller weight files. It is loaded only to be compared."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tqdm import tqdm

from ..errors import ConfigError
from ..hf_format.probe_logits import Probe
from ..hf_format.writer import unshared
from ..inference.load import stored_dtype
from ..models.loading.folder_checks import check_model_folder
from ..models.loading.weight_files import WeightFiles
from . import verify
from .output_folder import new_folder

_UNITS = {'KB': 10**3, 'MB': 10**6, 'GB': 10**9, 'KIB': 2**10, 'MIB': 2**20, 'GIB': 2**30}


def split(
    source: Path, target: Path, max_shard_size: str = '2GB', compare: bool = True
) -> tuple[int, dict[str, Any] | None]:
    """Write `source` to the new folder `target` in weight files of at most `max_shard_size`.

    With `compare`, and if `source` holds the probe logits of its training, what was written is loaded and compared with
    them. Returns the number of weight files, and the figures of the comparison (None: there was none).

    Raises:
        ModelError: `source` is no model folder with weights, or does not compute what was trained.
        ConfigError: The size cannot be read.
    """
    limit = parse_size(max_shard_size)
    check_model_folder(str(source))
    if not source.is_dir():
        raise ConfigError(f'{source} is no local folder; split works on a folder')
    with new_folder(target) as folder:
        shards = _write_shards(source, folder, limit)
        total = _rename(folder, shards)
        weights = {'.safetensors', '.bin', '.pt', '.pth'}
        for path in source.iterdir():
            if path.is_file() and path.suffix not in weights and not path.name.endswith('.index.json'):
                shutil.copy2(path, folder / path.name)
        index = dict(metadata=dict(total_size=total), weight_map={n: name for name, names in shards for n in names})
        (folder / 'model.safetensors.index.json').write_text(json.dumps(index, indent=2) + '\n', encoding='utf-8')
        probe, report = Probe.read(folder) if compare else None, None
        if probe is not None:
            dtype = str(stored_dtype(str(folder))).removeprefix('torch.')
            report = verify.verify_folder(folder, None, probe, dtype)
            verify.write_report(folder, report)
    return len(shards), report


def parse_size(text: str) -> int:
    """Return '2GB', '500MiB' or a plain number in bytes.

    Raises:
        ConfigError: It is none of these.
    """
    match = re.fullmatch(r'\s*(\d+(?:\.\d+)?)\s*([KMG]I?B)?\s*', text.upper())
    if not match or float(match[1]) * _UNITS.get(match[2], 1) < 1:
        raise ConfigError(f'--max-shard-size takes a size such as 2GB or 500MB, got `{text}`')
    return int(float(match[1]) * _UNITS.get(match[2], 1))


def _write_shards(source: Path, folder: Path, limit: int) -> list[tuple[str, list[str]]]:
    """Write shards as they fill; one tensor above the limit has a file of its own."""
    shards, pending, size = [], {}, 0
    for name, tensor in tqdm(
        WeightFiles(source).tensors(), desc='splitting', unit=' tensors', disable=None, leave=False
    ):
        if pending and size + tensor.nbytes > limit:
            shards.append(_write(folder, len(shards), pending))
            pending, size = {}, 0
        pending[name] = tensor
        size += tensor.nbytes
    shards.append(_write(folder, len(shards), pending))
    return shards


def _write(folder: Path, number: int, tensors: dict[str, torch.Tensor]) -> tuple[str, list[str]]:
    name = f'shard-{number}.safetensors'
    save_file(unshared(tensors), folder / name, metadata={'format': 'pt'})
    return name, list(tensors)


def _rename(folder: Path, shards: list) -> int:
    """Give the shards their final names, which contain their number, and return their bytes."""
    for i, (name, names) in enumerate(shards):
        final = f'model-{i + 1:05d}-of-{len(shards):05d}.safetensors'
        (folder / name).rename(folder / final)
        shards[i] = final, names
    return sum((folder / name).stat().st_size for name, _ in shards)
