"""The values of the published config.json of each preset's model, so that planning needs no connection.

`published_configs.json` has one entry for each model part of `configs/_base_/models`. With `like` an entry starts from
the values of another one. `type` is a model type of transformers; `original` is the `model_type` of a remote-code
checkpoint of 2023, with the keys of its own config.json. Of the RoPE factors, one per pair of dimensions, only the
first and the last are stored: they change no shape and no size.
"""

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

from ..models.legacy.families import open_legacy

FILE = Path(__file__).with_name('published_configs.json')
# Keys of this table that are not in config.json.
TABLE_KEYS = ('type', 'original')


@cache
def entries() -> dict[str, dict[str, Any]]:
    """Return all entries, each with the values of the entry that it is `like`."""
    return with_likes(json.loads(FILE.read_text(encoding='utf-8')))


def with_likes(raw: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the entries of a table, each with the values of the entry that it is `like`."""

    def complete(name: str) -> dict[str, Any]:
        values = dict(raw[name])
        parent = values.pop('like', None)
        return {**complete(parent), **values} if parent else values

    return {name: complete(name) for name in raw}


def shipped_config(part: str, base_model: str) -> PreTrainedConfig | None:
    """Return the config of the model part `part` with the hub name `base_model`; None: it is not in the table."""
    entry = entries().get(part)
    if entry is None:
        return None
    values = {key: value for key, value in entry.items() if key not in TABLE_KEYS}
    if 'original' in entry:
        return _remote_code_config(entry['original'], values, base_model)
    if 'rope_parameters' in values:
        values['rope_parameters'] = with_factors(values['rope_parameters'], values)
    return CONFIG_MAPPING[entry['type']](**values)


def with_factors(rope: dict[str, Any], sizes: dict[str, Any]) -> dict[str, Any]:
    """Return RoPE parameters with one factor per pair of dimensions, evenly spaced from the first to the last."""
    head = sizes['hidden_size'] // sizes['num_attention_heads']
    width = sizes.get('qk_rope_head_dim') or sizes.get('head_dim') or head
    pairs = int(width * rope.get('partial_rotary_factor', 1.0)) // 2
    complete = dict(rope)
    for key in ('short_factor', 'long_factor'):
        if key in rope:
            first, last = rope[key]
            complete[key] = [first + (last - first) * i / (pairs - 1) for i in range(pairs)]
    return complete


def _remote_code_config(model_type: str, values: dict[str, Any], base_model: str) -> PreTrainedConfig:
    """Return the config of the transformers class that a remote-code checkpoint is loaded into."""
    with TemporaryDirectory() as parent:
        # Some variants are recognized by the name of their folder.
        folder = Path(parent) / base_model.rsplit('/', 1)[-1]
        folder.mkdir()
        (folder / 'config.json').write_text(json.dumps({**values, 'model_type': model_type}), encoding='utf-8')
        return open_legacy(folder).config
