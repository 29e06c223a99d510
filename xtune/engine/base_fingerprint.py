"""A mark of a base model's weights that moves with them: the same in another folder, or split into other files."""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..errors import ModelError
from ..models.loading.weight_files import WeightFiles

# Tensors that are looked at, and numbers of each.
TENSORS, NUMBERS = 24, 64


def base_mark(name: str, revision: str | None = None) -> str:
    """Return a hash of some numbers of the weights of `name`; empty if its files are not on this machine.

    Args:
        name: Local folder or hub name.
        revision: Branch, tag or commit on the hub.
    """
    folder = local_folder(name, revision)
    if folder is None:
        return ''
    try:
        weights = WeightFiles(folder)
        names = sorted(weights.shapes)
        # The first and the last, and others at equal distances between them.
        chosen = {names[i * (len(names) - 1) // (TENSORS - 1)] for i in range(TENSORS)}
        samples = _samples(weights, chosen)
    except (ModelError, SafetensorError, OSError, RuntimeError):  # whether it can be loaded is found out then
        return ''
    digest = hashlib.blake2b(repr([(n, weights.shapes[n]) for n in names]).encode(), digest_size=16)
    for name, values in sorted(samples.items()):
        digest.update(name.encode() + values)
    return digest.hexdigest()


def local_folder(name: str, revision: str | None = None) -> Path | None:
    """Return the folder on this machine that holds the model `name`, from the hub's cache too; None: there is none."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or name.count('/') > 1:
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, 'config.json', revision=revision)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def _samples(weights: WeightFiles, chosen: set[str]) -> dict[str, bytes]:
    found = {}
    for path in weights.files:
        if path.suffix != '.safetensors':
            content = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
            found |= {name: _bytes(_first_row(content[name])) for name in chosen & set(content)}
            continue
        with safe_open(path, 'pt') as file:
            for name in chosen & set(file.keys()):
                part = file.get_slice(name)  # of which the first row alone is read
                dimensions = len(part.get_shape())
                tensor = part[:1] if dimensions > 1 else part[:] if dimensions else file.get_tensor(name)
                found[name] = _bytes(tensor)
    return found


def _first_row(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[:1] if tensor.dim() > 1 else tensor


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.flatten()[:NUMBERS].contiguous().view(torch.uint8).numpy().tobytes()
