"""The weight files of a model folder: which there are, whether they are whole, and their tensors, read lazily."""

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
from ..legacy.recognise import read_json

_STEMS = ('model.safetensors', 'pytorch_model.bin')
ADAPTER_STEMS = ('adapter_model.safetensors', 'adapter_model.bin')  # in the order in which peft looks for them
_SHORT = {
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
        self.dtypes: dict[str, str] = {}
        for path in self.files:
            for name, (shape, dtype) in headers(path).items():
                self.shapes[name], self.dtypes[name] = shape, dtype
        if not self.shapes:
            raise ModelError(f'{folder} holds weight files without a single tensor; copy them again')
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


def code_in(error: Exception) -> str:
    """Return what torch, which raised `error`, refused to execute of a file; empty: it failed for another reason."""
    if not isinstance(error, pickle.UnpicklingError):
        return ''
    found = re.search(r'GLOBAL (\S+)', str(error))
    return found[1].rstrip('.') if found else ''


def listed(names: list[str], most: int = 4) -> str:
    """Return the first names and how many more there are."""
    return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')


def refuse_packed(folder: Path, weights: WeightFiles) -> None:
    """Refuse whole numbers in place of weights where config.json does not say how they are to be read.

    Raises:
        ModelError: There are some.
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
            f'{folder} holds weights that are quantised already ({listed(packed)} as {weights.dtypes[packed[0]]}), and '
            'its config.json has no quantization_config to read them by; take the unquantised repository'
        )


def refuse_non_finite(folder: Path | str, name: str, tensor: torch.Tensor) -> None:
    """Refuse NaN and infinity; the smallest and largest number show them, much cheaper than a test of each number.

    Raises:
        ModelError: `tensor` holds one.
    """
    if not tensor.is_floating_point() or not tensor.numel():
        return
    ends = torch.aminmax(tensor.float() if tensor.element_size() == 1 else tensor)  # 8 bits have no such kernel
    if ends.min.isfinite() and ends.max.isfinite():
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
                index = json.loads(path.read_text(encoding='utf-8'))['weight_map']
                if not isinstance(index, dict) or not index or not all(isinstance(n, str) for n in index.values()):
                    raise ValueError('its weight_map does not give a file for each tensor')
            except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
                raise ModelError(f'{path} is damaged: {error}; copy it again') from error
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
    found = listed(sorted(p.name for p in folder.iterdir() if p.suffix in ('.safetensors', '.bin')))
    raise ModelError(
        f'{folder} has neither model.safetensors nor pytorch_model.bin, nor an index of several files '
        f'(model.safetensors.index.json); it holds {found or "no weights"}'
    )


def headers(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shape and type of each tensor of a file; types are named as in safetensors: F32, BF16, I8, ...

    Raises:
        ModelError: The file cannot be read, or holds code.
    """
    with _readable(path):
        stat = path.stat()
        return _read_headers(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)  # a run looks at them several times, and old .bin files are read whole for it
def _read_headers(path: Path, size: int, time: int) -> dict[str, tuple[tuple[int, ...], str]]:
    if path.suffix == '.safetensors':
        with safe_open(path, 'pt') as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
    return {name: (tuple(t.shape), _SHORT.get(t.dtype, str(t.dtype))) for name, t in _load_bin(path).items()}


def _load_bin(path: Path) -> dict[str, torch.Tensor]:
    try:
        content = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
        refuse_short(path, content)
    except RuntimeError as error:
        if 'mmap' not in str(error):  # files of torch before 1.6 cannot be mapped
            raise
        content = torch.load(path, map_location='cpu', weights_only=True)
    if not isinstance(content, dict):
        raise ModelError(f'{path} holds a {type(content).__name__}, where tensors by name are expected')
    tensors = {name: tensor for name, tensor in content.items() if torch.is_tensor(tensor)}
    if content and not tensors:
        raise ModelError(f'{path} holds no tensors by name, but {listed([str(key) for key in content])}')
    return tensors


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # bytes that are no pickle raise nearly anything while they are read
        raise ModelError(f'{path} cannot be loaded: {_why(path, error)}') from error


def _why(path: Path, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return 'this user may not read it'
    with path.open('rb') as file:
        if file.read(40).startswith(b'version https://git-lfs'):
            return 'it is the pointer that git keeps instead of the file; fetch the file with `git lfs pull`'
    code = code_in(error)
    if code:
        return f'it holds code besides weights ({code}), which is not run; take a .safetensors file'
    if not isinstance(error, (SafetensorError, OSError, RuntimeError)):
        return 'it is no file of torch, or damaged; copy it again'
    return f'{(str(error).strip() or type(error).__name__).splitlines()[0]}; copy it again'
