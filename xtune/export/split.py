"""`xtune convert split`: rewrite a model folder with smaller weight files. The model is loaded only for comparison."""

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

    With `compare`, and if `source` contains the probe logits of its training, the written model is loaded and compared
    with them.

    Returns:
        The number of weight files, and the comparison; None without a comparison.

    Raises:
        ModelError: `source` is not a model folder with weights, or differs from the trained model.
        ConfigError: The size cannot be parsed.
    """
    max_bytes = parse_size(max_shard_size)
    check_model_folder(str(source))
    if not source.is_dir():
        raise ConfigError(f'{source} is not a local folder; split works on a folder')
    with new_folder(target) as folder:
        shards = _write_shards(source, folder, max_bytes)
        total = _rename_shards(folder, shards)
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
    """Return the number of bytes of '2GB', '500MiB' or a plain number.

    Raises:
        ConfigError: `text` has another form.
    """
    match = re.fullmatch(r'\s*(\d+(?:\.\d+)?)\s*([KMG]I?B)?\s*', text.upper())
    if not match or float(match[1]) * _UNITS.get(match[2], 1) < 1:
        raise ConfigError(f'--max-shard-size takes a size such as 2GB or 500MB, got `{text}`')
    return int(float(match[1]) * _UNITS.get(match[2], 1))


def _write_shards(source: Path, folder: Path, max_bytes: int) -> list[tuple[str, list[str]]]:
    """Write each shard when it is full; a tensor above the limit gets a separate file.

    Returns:
        File name and tensor names of each shard.
    """
    shards, pending, size = [], {}, 0
    for name, tensor in tqdm(
        WeightFiles(source).tensors(), desc='splitting', unit=' tensors', disable=None, leave=False
    ):
        if pending and size + tensor.nbytes > max_bytes:
            shards.append(_write_shard(folder, len(shards), pending))
            pending, size = {}, 0
        pending[name] = tensor
        size += tensor.nbytes
    shards.append(_write_shard(folder, len(shards), pending))
    return shards


def _write_shard(folder: Path, number: int, tensors: dict[str, torch.Tensor]) -> tuple[str, list[str]]:
    name = f'shard-{number}.safetensors'
    save_file(unshared(tensors), folder / name, metadata={'format': 'pt'})
    return name, list(tensors)


def _rename_shards(folder: Path, shards: list) -> int:
    """Rename the shards to their final names, which contain the number of shards; return their total bytes."""
    for i, (name, names) in enumerate(shards):
        final = f'model-{i + 1:05d}-of-{len(shards):05d}.safetensors'
        (folder / name).rename(folder / final)
        shards[i] = final, names
    return sum((folder / name).stat().st_size for name, _ in shards)
