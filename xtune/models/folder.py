"""Check a model's folder before anything slow happens."""

import json
from pathlib import Path
from typing import Any

from ..errors import ModelError, did_you_mean
from .legacy.recognise import VARIANTS, read_config

_WEIGHTS = ('*.safetensors', '*.bin', '*.safetensors.index.json')
_COUNTS = ('num_hidden_layers', 'num_layers', 'hidden_size', 'num_attention_heads', 'vocab_size', 'padded_vocab_size')


def check_model_folder(name: str, weights: bool = True) -> None:
    """Refuse a local model folder that cannot be loaded; a hub name passes.

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
        base = _read_json(path / 'adapter_config.json').get('base_model_name_or_path')
        raise ModelError(
            f'{name} is an adapter, not a model; its base is {base}: give that as model and this as adapter'
        )
    if not (path / 'config.json').is_file():
        raise ModelError(f'{name} has no config.json, so it is no model folder')
    _check_config(name, read_config(path))
    if weights and not any(list(path.glob(pattern)) for pattern in _WEIGHTS):
        found = ', '.join(sorted(p.name for p in path.iterdir())[:6])
        raise ModelError(f'{name} has a config.json but no weights (*.safetensors or *.bin); it holds {found}')
    if weights:
        from .weights import WeightFiles, has_weights

        if has_weights(path):
            WeightFiles(path)


def check_vocabulary(name: str, largest: int) -> None:
    """Refuse a tokenizer whose `largest` id has no row in the embedding of the local folder `name`.

    Raises:
        ModelError: It has none.
    """
    path = Path(name).expanduser()
    values = read_config(path) if path.is_dir() else {}
    rows = values.get('padded_vocab_size', values.get('vocab_size'))
    if isinstance(rows, int) and largest >= rows:
        raise ModelError(
            f'the tokenizer of {name} has ids up to {largest}, its embedding (vocab_size in config.json) {rows} rows: '
            'they do not belong together, or the embedding was not resized when tokens were added'
        )


def _check_config(name: str, values: dict[str, Any]) -> None:
    for key in _COUNTS:
        value = values.get(key, 1)
        if not isinstance(value, (list, type(None))) and (not isinstance(value, int) or value < 1):
            raise ModelError(f'{name}/config.json: `{key}` must be a positive whole number, got {value!r}')
    method = (values.get('quantization_config') or {}).get('quant_method')
    if method is not None:
        from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING as METHODS

        if method not in METHODS:  # transformers would load the packed weights as if they were not quantised
            raise ModelError(
                f'{name}/config.json has the quantization method `{method}`, which transformers does not know'
                f'{did_you_mean(method, METHODS)}'
            )
    kind = values.get('model_type')
    if kind in VARIANTS or 'auto_map' in values:
        return
    from transformers import CONFIG_MAPPING

    if kind is None:
        raise ModelError(f'{name}/config.json has no `model_type`, which says what kind of model it is')
    if kind not in CONFIG_MAPPING:
        known = [*CONFIG_MAPPING.keys(), *VARIANTS]
        raise ModelError(
            f'{name}/config.json has the model type `{kind}`, which transformers does not know'
            + did_you_mean(kind, known)
        )


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
