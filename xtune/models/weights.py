"""The weight files of a model folder: which there are, whether they are whole, and their tensors, read lazily."""

import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..errors import ModelError

_STEMS = ('model.safetensors', 'pytorch_model.bin')


class WeightFiles:
    """The tensors of a local folder: one file or several with an index, safetensors or torch's .bin.

    Opening reads headers only; tensors of safetensors files and of .bin files in today's format stay on disk until
    they are used.

    Args:
        folder: A model folder.

    Raises:
        ModelError: A file or a tensor that the index names is missing, or a file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files, index = _files(folder)
        self.shapes: dict[str, tuple[int, ...]] = {}
        for path in self.files:
            self.shapes.update(_shapes(path))
        lost = sorted(set(index) - set(self.shapes))
        if lost:
            place = index[lost[0]]
            raise ModelError(
                f'{folder} lacks {listed(lost)}: the index names {place}, which does not hold it; copy the file again'
            )

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every tensor and its name, file by file.

        Raises:
            ModelError: A file cannot be read.
        """
        for path in self.files:
            with _readable(path):
                if path.suffix == '.safetensors':
                    with safe_open(path, 'pt') as file:
                        for name in file.keys():  # noqa: SIM118  a safetensors file is no dict
                            yield name, file.get_tensor(name)
                else:
                    yield from _load_bin(path).items()


def has_weights(folder: Path) -> bool:
    """Tell whether `folder` holds weights under the names that transformers reads."""
    return any((folder / name).is_file() for stem in _STEMS for name in (stem, f'{stem}.index.json'))


def listed(names: list[str], most: int = 4) -> str:
    """Return the first names and how many more there are."""
    return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')


def refuse_non_finite(folder: Path | str, name: str, tensor: torch.Tensor) -> None:
    """Refuse NaN and infinity; a sum carries them, and is much cheaper than a test of each number.

    Raises:
        ModelError: `tensor` holds one.
    """
    if not tensor.is_floating_point() or tensor.sum(dtype=torch.float32).isfinite():
        return
    count = int((~tensor.isfinite()).sum())
    if count:
        raise ModelError(f'{folder}: {name} holds {count} numbers that are NaN or infinite; the weights are damaged')


def _files(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """Return the files that hold the model, and tensor name -> file of the index."""
    for stem in _STEMS:
        path = folder / f'{stem}.index.json'
        if path.is_file():
            try:
                index = dict(json.loads(path.read_text(encoding='utf-8'))['weight_map'])
            except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
                raise ModelError(f'{path} is damaged: {error}') from error
            names = sorted(set(index.values()))
            missing = [name for name in names if not (folder / name).is_file()]
            if missing:
                raise ModelError(
                    f'{folder} holds {len(names) - len(missing)} of its {len(names)} weight files; '
                    f'missing: {listed(missing)}'
                )
            return [folder / name for name in names], index
        if (folder / stem).is_file():
            return [folder / stem], {}
    raise ModelError(f'{folder} has neither model.safetensors nor pytorch_model.bin, nor an index of several files')


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    with _readable(path):
        if path.suffix == '.safetensors':
            with safe_open(path, 'pt') as file:
                return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        return {name: tuple(tensor.shape) for name, tensor in _load_bin(path).items()}


def _load_bin(path: Path) -> dict[str, torch.Tensor]:
    try:
        content = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
    except RuntimeError as error:
        if 'mmap' not in str(error):  # files of torch before 1.6 cannot be mapped
            raise
        content = torch.load(path, map_location='cpu', weights_only=True)
    return {name: tensor for name, tensor in content.items() if torch.is_tensor(tensor)}


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError, RuntimeError, EOFError, AttributeError, pickle.UnpicklingError) as error:
        if isinstance(error, ModelError):
            raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f'{path} cannot be loaded: {first}; copy it again') from error
