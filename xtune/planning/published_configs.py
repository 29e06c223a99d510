"""What the published config.json of each model of the presets says, so that a run can be planned without a connection.

`published_configs.json` has one entry for each model part of `configs/_base_/models`. `like` takes the values of another
entry first. `type` is a model type of transformers; `original` is the `model_type` of a layout of 2023, whose keys are
then those of its own config.json. RoPE factors, one for each pair of dimensions, are given by the first and the last:
they change no shape and no size.
"""

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

from ..models.legacy.families import open_legacy

FILE = Path(__file__).with_name('published_configs.json')
# Keys of this table, which config.json does not have.
OURS = ('type', 'original')


@cache
def entries() -> dict[str, dict[str, Any]]:
    """Return each entry with the values that it takes from others."""
    return with_likes(json.loads(FILE.read_text(encoding='utf-8')))


def with_likes(raw: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the entries of a table, each with the values of the entry that it is `like`."""

    def complete(name: str) -> dict[str, Any]:
        own = dict(raw[name])
        parent = own.pop('like', None)
        return {**complete(parent), **own} if parent else own

    return {name: complete(name) for name in raw}


def shipped_config(part: str, base_model: str) -> PreTrainedConfig | None:
    """Return the config of the model part `part`, whose hub name is `base_model`; None: the table does not have it."""
    entry = entries().get(part)
    if entry is None:
        return None
    values = {key: value for key, value in entry.items() if key not in OURS}
    if 'original' in entry:
        return _original(entry['original'], values, base_model)
    if 'rope_parameters' in values:
        values['rope_parameters'] = with_factors(values['rope_parameters'], values)
    return CONFIG_MAPPING[entry['type']](**values)


def with_factors(rope: dict[str, Any], sizes: dict[str, Any]) -> dict[str, Any]:
    """Return RoPE parameters with a factor for each pair of dimensions, evenly spaced from the first to the last."""
    head = sizes['hidden_size'] // sizes['num_attention_heads']
    width = sizes.get('qk_rope_head_dim') or sizes.get('head_dim') or head
    pairs = int(width * rope.get('partial_rotary_factor', 1.0)) // 2
    made = dict(rope)
    for key in ('short_factor', 'long_factor'):
        if key in rope:
            first, last = rope[key]
            made[key] = [first + (last - first) * i / (pairs - 1) for i in range(pairs)]
    return made


def _original(kind: str, values: dict[str, Any], base_model: str) -> PreTrainedConfig:
    """Return the config of the class of transformers that a layout of 2023 is loaded into."""
    with TemporaryDirectory() as parent:
        # Some variants are told apart by the name of their folder.
        folder = Path(parent) / base_model.rsplit('/', 1)[-1]
        folder.mkdir()
        (folder / 'config.json').write_text(json.dumps({**values, 'model_type': kind}), encoding='utf-8')
        return open_legacy(folder).config
