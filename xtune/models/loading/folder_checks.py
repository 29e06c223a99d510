"""Check a model's folder before anything slow happens."""

from pathlib import Path
from typing import Any

from ...errors import ModelError, did_you_mean
from ..legacy.recognise import read_config, read_json
from .config_json import check_config

_WEIGHTS = ('*.safetensors', '*.bin', '*.safetensors.index.json')


def check_model_folder(name: str, weights: bool = True, own_code: bool = True) -> None:
    """Refuse a local model folder that cannot be loaded; a hub name passes.

    Args:
        name: Folder or hub name.
        weights: Whether it must hold weights.
        own_code: Whether a kind that only code in the folder knows passes; that code runs only if a config says so.

    Raises:
        ModelError: The folder does not exist, its config.json is missing, damaged or of an unknown kind, or (with
            `weights`) it holds no weights, or not all that its index names.
    """
    path = Path(name).expanduser()
    if not path.is_dir():
        if path.exists():
            raise ModelError(f'{name} is a file; a model is a folder with config.json and weights, or a hub name')
        if name.startswith(('.', '/', '~')) or name.count('/') > 1:
            names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise ModelError(f'model folder {name} does not exist{did_you_mean(path.name, names)}')
        return
    if (path / 'adapter_config.json').is_file() and not (path / 'config.json').is_file():
        base = read_json(path / 'adapter_config.json').get('base_model_name_or_path')
        raise ModelError(
            f'{name} is an adapter, not a model; its base is {base}: give that as model and this as adapter'
        )
    if not (path / 'config.json').is_file():
        raise ModelError(f'{name} has no config.json, so it is no model folder; it {_content(path)}')
    values = read_config(path)
    _check_weights(name, path, values, weights)  # first: a config class may make a list of all layers
    check_config(path, values, own_code)


def _check_weights(name: str, path: Path, values: dict[str, Any], needed: bool) -> None:
    """Refuse weights that are no whole model, or that `values` of config.json claims too much for."""
    if not any(list(path.glob(pattern)) for pattern in _WEIGHTS):
        if needed:
            raise ModelError(f'{name} has a config.json but no weights (*.safetensors or *.bin); it {_content(path)}')
        return
    from .size_claims import refuse_claims
    from .weight_files import WeightFiles, refuse_packed

    try:
        files = WeightFiles(path)
    except ModelError:
        if needed:
            raise
        return  # without its weights there is nothing to compare
    refuse_claims(path, values, files)
    if needed:
        refuse_packed(path, files)


def _content(path: Path) -> str:
    """Return what lies in a folder, and what it is good for if that is known."""
    names = sorted(p.name for p in path.iterdir())
    if not names:
        return 'is empty'
    if any(name.endswith('.gguf') for name in names):
        return 'holds GGUF files, which are for llama.cpp: take the repository that has .safetensors files'
    return f'holds {", ".join(names[:6])}' + (f' and {len(names) - 6} more' if len(names) > 6 else '')


def check_vocabulary(name: str, largest: int) -> None:
    """Refuse a tokenizer whose `largest` id has no row in the embedding of the local folder `name`.

    Raises:
        ModelError: It has none.
    """
    path = Path(name).expanduser()
    values = read_config(path) if path.is_dir() else {}
    text = values.get('text_config')  # of a model that also takes images
    values = text if isinstance(text, dict) and 'vocab_size' in text else values
    rows = values.get('padded_vocab_size', values.get('vocab_size'))
    if isinstance(rows, int):
        refuse_ids_beyond(name, largest, rows)


def refuse_ids_beyond(name: str, largest: int, rows: int) -> None:
    """Refuse the tokenizer of `name`, with ids up to `largest`, for an embedding of `rows` rows.

    Raises:
        ModelError: An id has no row.
    """
    if largest >= rows:
        raise ModelError(
            f'the tokenizer of {name} has ids up to {largest}, its embedding (vocab_size in config.json) {rows} rows: '
            'they do not belong together, or the embedding was not resized when tokens were added'
        )


def check_adapter_folder(name: str) -> dict:
    """Return the adapter's configuration.

    Raises:
        ModelError: The folder does not hold a peft adapter, or its weights cannot be read or are of a smaller one.
    """
    path = Path(name).expanduser()
    if not path.is_dir():
        raise ModelError(f'adapter folder {name} does not exist')
    if not (path / 'adapter_config.json').is_file():
        hint = '; it is a whole model' if (path / 'config.json').is_file() else ''
        if list(path.glob('*.pth')):
            hint = '; `xtune convert pth_to_hf` makes an adapter of a .pth'
        raise ModelError(f'{name} has no adapter_config.json, so it is no adapter folder{hint}')
    from .size_claims import check_adapter_files

    values = read_json(path / 'adapter_config.json')
    check_adapter_files(path, values)
    return values


def local_folder(name: str, revision: str | None = None) -> Path | None:
    """Return the folder of a model on this machine: `name` itself, or what the hub's cache has; None: there is none."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError, ValueError):
        return None
