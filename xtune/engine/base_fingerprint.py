"""A fingerprint of the weights of a base model, independent of its folder and of the split into files."""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..errors import ModelError
from ..models.loading.weight_files import WeightFiles

# Number of sampled tensors, and of sampled elements of each.
TENSORS, ELEMENTS = 24, 64


def weight_fingerprint(name: str, revision: str | None = None) -> str:
    """Return a hash of sampled weights of the model `name`; empty if its files are not on this machine.

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
        # Evenly spaced, including the first and the last.
        sampled = {names[i * (len(names) - 1) // (TENSORS - 1)] for i in range(TENSORS)}
        samples = _samples(weights, sampled)
    except (ModelError, SafetensorError, OSError, RuntimeError):  # loading the model reports the problem
        return ''
    digest = hashlib.blake2b(repr([(n, weights.shapes[n]) for n in names]).encode(), digest_size=16)
    for name, values in sorted(samples.items()):
        digest.update(name.encode() + values)
    return digest.hexdigest()


def local_folder(name: str, revision: str | None = None) -> Path | None:
    """Return the local folder of the model `name`, which may be in the hub's cache; None if there is none."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or name.count('/') > 1:
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(name, 'config.json', revision=revision)
    except HFValidationError:
        return None
    return Path(path).parent if isinstance(path, str) else None


def _samples(weights: WeightFiles, names: set[str]) -> dict[str, bytes]:
    samples = {}
    for path in weights.files:
        if path.suffix != '.safetensors':
            content = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
            samples |= {name: _bytes(_first_row(content[name])) for name in names & set(content)}
            continue
        with safe_open(path, 'pt') as file:
            for name in names & set(file.keys()):
                view = file.get_slice(name)  # reads only the first row
                dimensions = len(view.get_shape())
                tensor = view[:1] if dimensions > 1 else view[:] if dimensions else file.get_tensor(name)
                samples[name] = _bytes(tensor)
    return samples


def _first_row(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[:1] if tensor.dim() > 1 else tensor


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.flatten()[:ELEMENTS].contiguous().view(torch.uint8).numpy().tobytes()
