"""Find rows of a model's input embedding that were never trained, such as added or reserved tokens."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

# Suffixes of the names of input embeddings in checkpoints.
_NAMES = ('embed_tokens.weight', 'wte.weight', 'tok_embeddings.weight', 'word_embeddings.weight', 'embed_in.weight')
_SAME_COSINE = 0.9999  # of two untrained rows: new rows are sampled close to the mean of all rows
_SMALL_NORM = 0.05  # relative to the median norm of reference rows
_REFERENCE_ROWS = 64


def untrained_rows(folder: Path, ids: list[int]) -> list[int]:
    """Return the token `ids` whose embedding row [D] is zero, very small, or nearly equal to that of another of `ids`.

    Return [] for a folder without safetensors files or with an embedding of another name.
    """
    try:
        location = _find_embedding(folder)
        if location is None or not ids:
            return []
        path, name = location
        with safe_open(path, 'pt') as file:
            weight = file.get_slice(name)
            count = weight.get_shape()[0]
            ids = [i for i in ids if i < count]
            rows_ND = torch.stack([weight[i] for i in ids]).float() if ids else torch.zeros(0, 1)
            reference_MD = weight[count // 3 : count // 3 + _REFERENCE_ROWS].float()
    except (OSError, ValueError, KeyError, SafetensorError):  # loading the model reports the problem
        return []
    norms_N = rows_ND.norm(dim=1)
    units_ND = rows_ND / norms_N.clamp_min(1e-12)[:, None]
    same_N = (units_ND @ units_ND.T > _SAME_COSINE).sum(dim=1) > 1
    small_N = norms_N < _SMALL_NORM * reference_MD.norm(dim=1).median()
    return [i for i, untrained in zip(ids, (same_N | small_N).tolist(), strict=True) if untrained]


def _find_embedding(folder: Path) -> tuple[Path, str] | None:
    """Return the file and the tensor name of the input embedding; None if there is none."""
    index = folder / 'model.safetensors.index.json'
    if index.is_file():
        for name, file in json.loads(index.read_text('utf-8'))['weight_map'].items():
            if name.endswith(_NAMES):
                return folder / file, name
        return None
    path = folder / 'model.safetensors'
    if not path.is_file():
        return None
    with safe_open(path, 'pt') as file:
        name = next((name for name in file.keys() if name.endswith(_NAMES)), None)  # noqa: SIM118  it is no dict
    return None if name is None else (path, name)
