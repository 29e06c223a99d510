"""Check a model's folder before anything slow happens."""

import json
from pathlib import Path

from ..errors import ModelError, did_you_mean

_WEIGHTS = ('*.safetensors', '*.bin', '*.safetensors.index.json')


def check_model_folder(name: str, weights: bool = True) -> None:
    """Refuse a local model folder that cannot be loaded; a hub name passes.

    Raises:
        ModelError: The folder does not exist, has no config.json, or (with `weights`) holds no weights.
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
        base = _read_json(path / 'adapter_config.json').get('base_model_name_or_path')
        raise ModelError(
            f'{name} is an adapter, not a model; its base is {base}: give that as model and this as adapter'
        )
    if not (path / 'config.json').is_file():
        raise ModelError(f'{name} has no config.json, so it is no model folder')
    if weights and not any(list(path.glob(pattern)) for pattern in _WEIGHTS):
        found = ', '.join(sorted(p.name for p in path.iterdir())[:6])
        raise ModelError(f'{name} has a config.json but no weights (*.safetensors or *.bin); it holds {found}')


def check_adapter_folder(name: str) -> dict:
    """Return the adapter's configuration.

    Raises:
        ModelError: The folder does not hold a peft adapter.
    """
    path = Path(name).expanduser()
    if not path.is_dir():
        raise ModelError(f'adapter folder {name} does not exist')
    if not (path / 'adapter_config.json').is_file():
        hint = '; it is a whole model' if (path / 'config.json').is_file() else ''
        if list(path.glob('*.pth')):
            hint = '; `xtune convert pth_to_hf` makes an adapter of a .pth'
        raise ModelError(f'{name} has no adapter_config.json, so it is no adapter folder{hint}')
    if not list(path.glob('adapter_model.*')):
        raise ModelError(f'{name} has an adapter_config.json but no adapter_model.safetensors')
    return _read_json(path / 'adapter_config.json')


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f'{path} is damaged: {error}') from error
