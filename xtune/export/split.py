"""`xtune convert split`: rewrite a model folder with smaller weight files. The model is loaded only for comparison."""

import json
import shutil
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..errors import ConfigError
from ..hf_format.probe_logits import Probe
from ..inference.base_config import stored_dtype
from ..models.loading.folder_checks import check_model_folder
from ..models.loading.weight_files import WeightFiles
from . import verify
from .output_folder import new_folder
from .shards import INDEX, parse_size, write_shards


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
        tensors = WeightFiles(source).tensors()
        bar = tqdm(tensors, desc='splitting', unit=' tensors', disable=None, leave=False)
        shards = write_shards(folder, bar, max_bytes)
        weights = {'.safetensors', '.bin', '.pt', '.pth'}
        for path in source.iterdir():
            if path.is_file() and path.suffix not in weights and not path.name.endswith('.index.json'):
                shutil.copy2(path, folder / path.name)
        total = sum((folder / name).stat().st_size for name in shards.files)
        index = dict(metadata=dict(total_size=total), weight_map=shards.weight_map)
        (folder / INDEX).write_text(json.dumps(index, indent=2) + '\n', encoding='utf-8')
        probe, report = Probe.read(folder) if compare else None, None
        if probe is not None:
            dtype = str(stored_dtype(str(folder))).removeprefix('torch.')
            report = verify.verify_folder(folder, None, probe, dtype)
            verify.write_report(folder, report)
    return len(shards.files), report
