"""The config that is stored in a checkpoint; the config file on disk may have changed since."""

import json
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..compat.mmengine_private import config_dict
from ..config.deprecated import rename_sections
from ..config.lazy import comparable, read_text, to_plain
from ..config.load import load
from ..config.specs import ModelSpec
from ..config.wire import wire
from ..errors import CheckpointError, XtuneError

# Options that affect an export. All others may change between training and conversion.
_EXPORT_OPTIONS = ('base_model', 'llm', 'tokenizer', 'chat_template', 'quantization', 'lora')
# Replacements for sections that may name the user's code, which conversion does not need and may no longer exist.
_PLACEHOLDERS = dict(
    train_dataset=dict(path='unused'),
    val_dataset=None,
    custom_imports=None,
    runner=None,
    optimizer=dict(type='torch.optim.SGD'),
)


def model_of_checkpoint(meta: dict[str, Any], config: Path) -> ModelSpec:
    """Return the model of the run that wrote a checkpoint with this `meta`.

    If the local folder of its base model no longer exists, use the base model of `config`.

    Raises:
        CheckpointError: The stored config cannot be read.
    """
    try:
        cfg = _stored_config(meta)
        for name, value in _PLACEHOLDERS.items():
            cfg[name] = value
        if _is_missing_folder(cfg['base_model']):
            cfg['base_model'] = load(config)['base_model']
        return wire(cfg).model
    except XtuneError:
        raise
    except Exception as error:  # the stored text is code of any version of xtune
        raise CheckpointError(f'the config stored in the checkpoint cannot be read: {error}') from error


def differences(config: Path, meta: dict[str, Any]) -> list[str]:
    """Return a note on each option of `config` that affects the export and differs from the checkpoint's config."""
    try:
        current = comparable(to_plain(load(config)))
    except XtuneError as error:
        return [f'{config} cannot be read ({str(error).splitlines()[0]}); the config in the checkpoint is used']
    trained = comparable(to_plain(_stored_config(meta)))
    changed = [name for name in _EXPORT_OPTIONS if current.get(name) != trained.get(name)]
    return [
        f'`{name}` in {config} differs from the config in the checkpoint, which is used: '
        f'{_as_text(trained.get(name))}, not {_as_text(current.get(name))}'
        for name in changed
    ]


def _stored_config(meta: dict[str, Any]) -> Config:
    """Return the config in `meta` with the current names of its options; an earlier version may have written it."""
    cfg = read_text(meta['config'])
    rename_sections(config_dict(cfg), 'the checkpoint', quiet=True)
    return cfg


def _is_missing_folder(base_model: str) -> bool:
    return base_model.startswith(('/', '.', '~')) and not Path(base_model).expanduser().is_dir()


def _as_text(value: Any) -> str:
    """Return a readable text of a value of `comparable`, which returns pairs of a type and the value."""
    return json.dumps(_plain(value), ensure_ascii=False, default=str)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple) and len(value) == 3:  # an imported name
        return value[2]
    if isinstance(value, tuple):
        type_name, items = value
        return [_plain(item) for item in items] if type_name in ('list', 'tuple') else items
    return value
