"""The weight files of a model folder: find them, check that they are complete, and read their tensors lazily."""

import json
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ...errors import ModelError
from ...utils.torch_files import refuse_short
from .json_files import read_json

_STEMS = ('model.safetensors', 'pytorch_model.bin')
ADAPTER_STEMS = ('adapter_model.safetensors', 'adapter_model.bin')  # in peft's order of preference
_SAFETENSORS_DTYPES = {
    torch.int8: 'I8',
    torch.uint8: 'U8',
    torch.int16: 'I16',
    torch.int32: 'I32',
    torch.int64: 'I64',
    torch.float16: 'F16',
    torch.bfloat16: 'BF16',
    torch.float32: 'F32',
    torch.float64: 'F64',
}


class WeightFiles:
    """The tensors of a local folder: a single file, or several with an index, as safetensors or torch's .bin.

    The constructor reads only headers. Tensors of safetensors files, and of .bin files since torch 1.6, are read from
    disk when used.

    Args:
        folder: A model folder.

    Raises:
        ModelError: A file or a tensor of the index is missing, or a file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files, index = _files(folder)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        for path in self.files:
            for name, (shape, dtype) in headers(path).items():
                self.shapes[name], self.dtypes[name] = shape, dtype
        if not self.shapes:
            raise ModelError(f'{folder} has weight files without any tensor; copy them again')
        missing = sorted(set(index) - set(self.shapes))
        if missing:
            file = index[missing[0]]
            raise ModelError(
                f'{folder} lacks {listed(missing)}: the index names {file}, which does not contain it; copy the file '
                'again'
            )

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield name and tensor of all weights, file by file.

        Raises:
            ModelError: A file cannot be read.
        """
        for path in self.files:
            with _readable(path):
                if path.suffix == '.safetensors':
                    with safe_open(path, 'pt') as file:
                        for name in file.keys():  # noqa: SIM118  safe_open returns no dict
                            yield name, file.get_tensor(name)
                else:
                    yield from _load_bin(path).items()


def code_in(error: Exception) -> str:
    """Return the name of the global that torch's safe unpickler refused in `error`; '' for other errors."""
    if not isinstance(error, pickle.UnpicklingError):
        return ''
    match = re.search(r'GLOBAL (\S+)', str(error))
    return match[1].rstrip('.') if match else ''


def listed(names: list[str], limit: int = 4) -> str:
    """Return the first names, joined by commas, and the number of the remaining ones."""
    return ', '.join(names[:limit]) + (f' and {len(names) - limit} more' if len(names) > limit else '')


def refuse_packed(folder: Path, weights: WeightFiles) -> None:
    """Refuse integer weights if config.json has no quantization_config.

    Raises:
        ModelError: There are integer weights.
    """
    if read_json(folder / 'config.json').get('quantization_config'):
        return
    packed = sorted(
        name
        for name, dtype in weights.dtypes.items()
        if name.endswith('.qweight') or (dtype in ('I8', 'U8') and name.endswith('.weight'))
    )
    if packed:
        raise ModelError(
            f'{folder} contains quantized weights ({listed(packed)} as {weights.dtypes[packed[0]]}), but its '
            'config.json has no quantization_config; use the unquantized repository'
        )


def _files(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """Return the weight files, and the index's map from tensor name to file name."""
    for stem in _STEMS:
        path = folder / f'{stem}.index.json'
        if path.is_file():
            try:
                index = json.loads(path.read_text(encoding='utf-8'))['weight_map']
                if not isinstance(index, dict) or not index or not all(isinstance(n, str) for n in index.values()):
                    raise ValueError('its weight_map does not name a file for each tensor')
            except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
                raise ModelError(f'{path} is damaged: {error}; copy it again') from error
            names = sorted(set(index.values()))
            missing = [name for name in names if not (folder / name).is_file()]
            if missing:
                raise ModelError(
                    f'{folder} has {len(names) - len(missing)} of its {len(names)} weight files; '
                    f'missing: {listed(missing)}'
                )
            return [folder / name for name in names], index
        if (folder / stem).is_file():
            return [folder / stem], {}
    present = listed(sorted(p.name for p in folder.iterdir() if p.suffix in ('.safetensors', '.bin')))
    raise ModelError(
        f'{folder} has neither model.safetensors nor pytorch_model.bin, nor an index of several files '
        f'(model.safetensors.index.json); it contains {present or "no weights"}'
    )


def headers(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shape and type of each tensor of a file; types have their safetensors names: F32, BF16, I8, ...

    Raises:
        ModelError: The file cannot be read, or contains code.
    """
    with _readable(path):
        stat = path.stat()
        return _read_headers(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)  # a run needs them several times, and reading those of an old .bin reads the full file
def _read_headers(path: Path, size: int, time: int) -> dict[str, tuple[tuple[int, ...], str]]:
    if path.suffix == '.safetensors':
        with safe_open(path, 'pt') as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {name: (tuple(view.get_shape()), view.get_dtype()) for name, view in slices.items()}
    return {
        name: (tuple(tensor.shape), _SAFETENSORS_DTYPES.get(tensor.dtype, str(tensor.dtype)))
        for name, tensor in _load_bin(path).items()
    }


def _load_bin(path: Path) -> dict[str, torch.Tensor]:
    try:
        content = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
        refuse_short(path, content)
    except RuntimeError as error:
        if 'mmap' not in str(error):  # files of torch before 1.6 cannot be memory-mapped
            raise
        content = torch.load(path, map_location='cpu', weights_only=True)
    if not isinstance(content, dict):
        raise ModelError(f'{path} contains a {type(content).__name__}, expected a dict of tensors')
    tensors = {name: tensor for name, tensor in content.items() if torch.is_tensor(tensor)}
    if content and not tensors:
        raise ModelError(f'{path} contains no tensors, but {listed([str(key) for key in content])}')
    return tensors


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # unpickling invalid bytes may raise almost any exception
        raise ModelError(f'{path} cannot be loaded: {_describe_error(path, error)}') from error


def _describe_error(path: Path, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return 'permission denied'
    with path.open('rb') as file:
        if file.read(40).startswith(b'version https://git-lfs'):
            return 'it is a Git LFS pointer; fetch the file with `git lfs pull`'
    code = code_in(error)
    if code:
        return f'it contains code ({code}), which is not run; use a .safetensors file'
    if not isinstance(error, (SafetensorError, OSError, RuntimeError)):
        return 'it is not a torch file, or damaged; copy it again'
    return f'{(str(error).strip() or type(error).__name__).splitlines()[0]}; copy it again'
