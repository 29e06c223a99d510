"""Rows of a model's input embedding that were never trained: tokens added to it, or kept for later use."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

# Ends of the names that input embeddings have in checkpoints.
_NAMES = ('embed_tokens.weight', 'wte.weight', 'tok_embeddings.weight', 'word_embeddings.weight', 'embed_in.weight')
_SAME = 0.9999  # cosine of two rows of which none was trained: new ones are drawn close around the mean of all
_SMALL = 0.05  # norm of a row, as a share of that of ordinary rows
_ORDINARY = 64  # rows to compare with


def untrained_rows(folder: Path, ids: list[int]) -> list[int]:
    """Return those of the token `ids` whose row [D] is zero, very small, or almost the same as that of another of them.

    Nothing is returned for a folder without safetensors files or with an embedding of another name.
    """
    try:
        found = _embedding(folder)
        if found is None or not ids:
            return []
        with safe_open(found[0], 'pt') as file:
            weight = file.get_slice(found[1])
            count = weight.get_shape()[0]
            ids = [i for i in ids if i < count]
            rows_ND = torch.stack([weight[i] for i in ids]).float() if ids else torch.zeros(0, 1)
            ordinary_MD = weight[count // 3 : count // 3 + _ORDINARY].float()
    except (OSError, ValueError, KeyError, SafetensorError):  # the loader says what is wrong with it
        return []
    norms_N = rows_ND.norm(dim=1)
    units_ND = rows_ND / norms_N.clamp_min(1e-12)[:, None]
    alike_N = (units_ND @ units_ND.T > _SAME).sum(dim=1) > 1
    small_N = norms_N < _SMALL * ordinary_MD.norm(dim=1).median()
    return [i for i, bad in zip(ids, (alike_N | small_N).tolist(), strict=True) if bad]


def _embedding(folder: Path) -> tuple[Path, str] | None:
    """Return the file and the name of the input embedding."""
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
