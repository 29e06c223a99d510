"""Check model and adapter folders before anything slow happens."""

from pathlib import Path
from typing import Any

from ...errors import ModelError, did_you_mean
from .config_json import check_config
from .json_files import read_config, read_json

_WEIGHTS = ('*.safetensors', '*.bin', '*.safetensors.index.json')


def check_model_folder(name: str, weights: bool = True, allow_remote_code: bool = True) -> None:
    """Refuse a local model folder that cannot be loaded; accept every hub name.

    Args:
        name: Folder or hub name.
        weights: Whether the folder must contain weights.
        allow_remote_code: Whether to accept a model type that only the folder's code defines. Nothing is run here.

    Raises:
        ModelError: The folder does not exist, its config.json is missing, damaged or has an unknown model type, or
            (with `weights`) weights are missing or incomplete.
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
            f'{name} is an adapter, not a model; its base is {base}: pass that as the model and this as the adapter'
        )
    if not (path / 'config.json').is_file():
        raise ModelError(f'{name} has no config.json, so it is not a model folder; it {_describe_content(path)}')
    values = read_config(path)
    _check_weights(name, path, values, weights)  # first: a config class may allocate a list of all layers
    check_config(path, values, allow_remote_code)


def _check_weights(name: str, path: Path, values: dict[str, Any], required: bool) -> None:
    """Refuse incomplete weights, and weights that are smaller than `values` of config.json."""
    if not any(list(path.glob(pattern)) for pattern in _WEIGHTS):
        if required:
            raise ModelError(
                f'{name} has a config.json but no weights (*.safetensors or *.bin); it {_describe_content(path)}'
            )
        return
    from .size_claims import check_config_sizes
    from .weight_files import WeightFiles, refuse_packed

    try:
        files = WeightFiles(path)
    except ModelError:
        if required:
            raise
        return  # no sizes to compare with
    check_config_sizes(path, values, files)
    if required:
        refuse_packed(path, files)


def _describe_content(path: Path) -> str:
    """Return the first file names of a folder as text, with a hint for GGUF files."""
    names = sorted(p.name for p in path.iterdir())
    if not names:
        return 'is empty'
    if any(name.endswith('.gguf') for name in names):
        return 'contains GGUF files, which are for llama.cpp: use the repository with .safetensors files'
    return f'contains {", ".join(names[:6])}' + (f' and {len(names) - 6} more' if len(names) > 6 else '')


def check_vocabulary(name: str, largest_id: int) -> None:
    """Refuse a tokenizer whose largest id has no row in the embedding of the local folder `name`.

    Raises:
        ModelError: The embedding has no such row.
    """
    path = Path(name).expanduser()
    values = read_config(path) if path.is_dir() else {}
    text = values.get('text_config')  # of a multimodal model
    values = text if isinstance(text, dict) and 'vocab_size' in text else values
    rows = values.get('padded_vocab_size', values.get('vocab_size'))
    if isinstance(rows, int):
        refuse_ids_beyond(name, largest_id, rows)


def refuse_ids_beyond(name: str, largest_id: int, rows: int) -> None:
    """Refuse the tokenizer of `name`, with ids up to `largest_id`, for an embedding of `rows` rows.

    Raises:
        ModelError: An id has no row.
    """
    if largest_id >= rows:
        raise ModelError(
            f'the tokenizer of {name} has ids up to {largest_id}, its embedding (vocab_size in config.json) {rows} '
            'rows: they do not belong together, or the embedding was not resized when tokens were added'
        )


def check_adapter_folder(name: str) -> dict:
    """Return the content of an adapter folder's adapter_config.json.

    Raises:
        ModelError: The folder is not a peft adapter, or its weights cannot be read or are smaller than its config.
    """
    path = Path(name).expanduser()
    if not path.is_dir():
        raise ModelError(f'adapter folder {name} does not exist')
    if not (path / 'adapter_config.json').is_file():
        hint = '; it is a full model' if (path / 'config.json').is_file() else ''
        if list(path.glob('*.pth')):
            hint = '; `xtune convert pth_to_hf` converts a .pth to an adapter'
        raise ModelError(f'{name} has no adapter_config.json, so it is not an adapter folder{hint}')
    from .size_claims import check_adapter_files

    values = read_json(path / 'adapter_config.json')
    check_adapter_files(path, values)
    return values


def local_folder(name: str, revision: str | None = None) -> Path | None:
    """Return the local folder of a model: `name` itself, or its snapshot in the hub's cache; None if there is none."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError, ValueError):
        return None
