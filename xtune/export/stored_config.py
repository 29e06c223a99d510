"""The config that a checkpoint holds: what its run was, whatever became of the file on disk."""

import json
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..config.deprecated import rename_sections
from ..config.lazy import comparable, read_text, to_plain
from ..config.load import load
from ..config.wire import Job, wire
from ..errors import CheckpointError, XtuneError

# What decides of an export. Everything else may change between training and conversion.
_SECTIONS = ('base_model', 'llm', 'tokenizer', 'chat_template', 'quantization', 'lora')
# Sections that name code of the user's, which conversion does not need and which may be gone.
_UNUSED = dict(
    train_dataset=dict(path='unused'),
    val_dataset=None,
    custom_imports=None,
    runner=None,
    optimizer=dict(type='torch.optim.SGD'),
)


def stored_job(meta: dict[str, Any], config: Path) -> Job:
    """Return the run that wrote a checkpoint with this `meta`, without its data and its optimizer.

    Where the local folder of its base model is gone, the one that `config` names takes its place.

    Raises:
        CheckpointError: The config in it cannot be read.
    """
    try:
        cfg = _stored_config(meta)
        for name, value in _UNUSED.items():
            cfg[name] = value
        if _is_gone(cfg['base_model']):
            cfg['base_model'] = load(config)['base_model']
        job = wire(cfg)
    except XtuneError:
        raise
    except Exception as error:  # the text is code of any version of xtune
        raise CheckpointError(f'the config that the checkpoint holds cannot be read: {error}') from error
    return job


def differences(config: Path, meta: dict[str, Any]) -> list[str]:
    """Return a sentence on each section of `config` that differs from what the checkpoint was trained with."""
    try:
        now = comparable(to_plain(load(config)))
    except XtuneError as error:
        return [f'{config} cannot be read ({str(error).splitlines()[0]}); the config in the checkpoint is used']
    then = comparable(to_plain(_stored_config(meta)))
    changed = [name for name in _SECTIONS if now.get(name) != then.get(name)]
    return [
        f'{config} has another `{name}` than the checkpoint was trained with, which is used: '
        f'{_shown(then.get(name))}, not {_shown(now.get(name))}'
        for name in changed
    ]


def _stored_config(meta: dict[str, Any]) -> Config:
    """Return the config in `meta` with the present names of its options; an earlier version may have written it."""
    cfg = read_text(meta['config'])
    rename_sections(cfg._cfg_dict, 'the checkpoint', quiet=True)
    return cfg


def _is_gone(base_model: str) -> bool:
    return base_model.startswith(('/', '.', '~')) and not Path(base_model).expanduser().is_dir()


def _shown(value: Any) -> str:
    """Return a value as a person reads it; `comparable` makes pairs of a type and the value."""
    return json.dumps(_plain(value), ensure_ascii=False, default=str)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple) and len(value) == 3:  # an imported name
        return value[2]
    if isinstance(value, tuple):
        kind, item = value
        return [_plain(one) for one in item] if kind in ('list', 'tuple') else item
    return value
