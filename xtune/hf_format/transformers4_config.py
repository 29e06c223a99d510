"""Write a config.json that transformers 4 and 5 read alike; some inference engines pin transformers below 5.

transformers 5 stores the rotary embedding's settings in `rope_parameters`. transformers 4 ignores that key and silently
uses base 10000 without scaling. This module adds the keys that transformers 4 reads; transformers 5 reads the file as
before.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

# Names in transformers 4 of the rotary base and the rotated share of each head.
_THETA, _SHARE = 'rope_theta', 'partial_rotary_factor'
_LENGTH = 'original_max_position_embeddings'  # for the type `longrope` it is read outside rope_scaling
_FLAT_NAMES = dict.fromkeys(('gpt_neox', 'gpt_neox_japanese'), ('rotary_emb_base', 'rotary_pct'))
# Models with separate rotary bases for full and sliding attention: the names of the two bases.
_LAYER_NAMES = dict.fromkeys(('modernbert', 'modernbert-decoder'), ('global_rope_theta', 'local_rope_theta'))
_FULL, _SLIDING = 'full_attention', 'sliding_attention'
# Models whose config class in transformers 4 reads `type` instead of `rope_type`, and only these other keys.
_TYPE_ONLY = {
    'olmo': ('factor',),
    'olmo2': ('factor',),
    'phi3': ('short_factor', 'long_factor'),
    'phi4_multimodal': ('short_factor', 'long_factor'),
}
# Hybrid models: the key that lists the layer types, and the layer types' older names.
_LAYER_TYPE_KEYS = {'granitemoehybrid': 'layer_types', 'zamba2': 'layers_block_type'}
_OLD_LAYER_TYPES = {'linear_attention': 'mamba', _FULL: 'attention'}


def readable_by_v4(folder: Path) -> None:
    """Add the keys that transformers 4 reads to the config.json in `folder`."""
    path = folder / 'config.json'
    values = with_v4_keys(json.loads(path.read_text(encoding='utf-8')))
    path.write_text(json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + '\n', encoding='utf-8')


def with_v4_keys(values: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a config.json of transformers 5 with the keys that transformers 4 reads.

    transformers 5 must read the same config from both. Leave out a key that it would keep as an additional attribute,
    unless transformers 4 requires the key. If the keys change the config of transformers 5, add only the dtype.
    """
    before = _parse(values)
    if before is None:
        return values
    for candidate in (_with_all_v4_keys(values), _with_dtype(values)):
        additional = set(_parse(candidate) or ()) - set(before) - {_LENGTH}
        if candidate.get(_SHARE) not in (None, 1):
            additional.discard(_SHARE)
        candidate = {key: value for key, value in candidate.items() if key not in additional}
        after = _parse(candidate) or {}
        if {key: after.get(key) for key in before} == before:
            return candidate
    return values


def _with_dtype(values: dict[str, Any]) -> dict[str, Any]:
    """Add `torch_dtype`, the older name of `dtype`, also in nested configs."""
    nested = {key: _with_dtype(value) for key, value in values.items() if key.endswith('_config') and _is_dict(value)}
    return {**(dict(torch_dtype=values['dtype']) if isinstance(values.get('dtype'), str) else {}), **values, **nested}


def _with_all_v4_keys(values: dict[str, Any]) -> dict[str, Any]:
    """Return `values` with all keys and spellings of transformers 4, also in nested configs."""
    nested = {
        key: _with_all_v4_keys(value) for key, value in values.items() if key.endswith('_config') and _is_dict(value)
    }
    model_type, rope = values.get('model_type', ''), values.get('rope_parameters')
    v4_keys: dict[str, Any] = {}
    if _is_dict(rope) and any(_is_dict(value) for value in rope.values()):
        v4_keys = _layer_rope_keys(model_type, rope)
    elif _is_dict(rope):
        v4_keys = _flat_rope_keys(model_type, rope, *_FLAT_NAMES.get(model_type, (_THETA, _SHARE)))
    if model_type == 'qwen3_moe' and 'num_local_experts' in values:
        v4_keys['num_experts'] = values['num_local_experts']
    changed = {key: _plain_number(value) for key, value in values.items()} | nested
    layer_types = values.get(_LAYER_TYPE_KEYS.get(model_type))
    if isinstance(layer_types, list):
        changed[_LAYER_TYPE_KEYS[model_type]] = [_OLD_LAYER_TYPES.get(layer, layer) for layer in layer_types]
    return {**v4_keys, **_with_dtype(changed)}


def _layer_rope_keys(model_type: str, rope: dict[str, Any]) -> dict[str, Any]:
    """Return the RoPE keys of a model with separate parameters for full and sliding attention."""
    full, sliding = _LAYER_NAMES.get(model_type, (_THETA, 'rope_local_base_freq'))
    theta = (rope.get(_SLIDING) or {}).get(_THETA)
    keys = _flat_rope_keys(model_type, rope.get(_FULL) or {}, full, _SHARE)
    return keys | ({} if theta is None else {sliding: theta})


def _flat_rope_keys(model_type: str, rope: dict[str, Any], theta: str, share: str) -> dict[str, Any]:
    """Return the RoPE keys of one set of parameters; `theta` and `share` name the base and the rotated share."""
    keys = {new: rope[old] for old, new in ((_THETA, theta), (_SHARE, share)) if rope.get(old) is not None}
    scaling = {key: value for key, value in rope.items() if key not in (_THETA, _SHARE)}
    name = scaling.get('rope_type', 'default')
    if name == 'default' and set(scaling) <= {'rope_type', 'type'}:
        return keys
    if model_type in _TYPE_ONLY:
        scaling = {key: value for key, value in scaling.items() if key in _TYPE_ONLY[model_type]} | dict(type=name)
    elif 'type' in scaling:  # transformers 4 prefers it to `rope_type`
        scaling['type'] = name
    if name == 'longrope' and model_type not in _TYPE_ONLY and _LENGTH in scaling:
        keys[_LENGTH] = scaling[_LENGTH]
    return keys | dict(rope_scaling=scaling)


def _plain_number(value: Any) -> Any:
    """Replace infinity as transformers 5 encodes it, a dict with `__float__`, by a float."""
    if isinstance(value, list):
        return [_plain_number(item) for item in value]
    return float(value['__float__']) if _is_dict(value) and set(value) == {'__float__'} else value


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def _parse(values: dict[str, Any]) -> dict[str, Any] | None:
    """Return the config that the installed transformers reads from `values`; None if it cannot read them.

    Leave out `type`, the older name of `rope_type`.
    """
    from transformers import CONFIG_MAPPING

    from ..utils.quiet import quiet

    model_type = values.get('model_type')
    if model_type not in CONFIG_MAPPING:
        return None
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / 'config.json'
        path.write_text(json.dumps(values), encoding='utf-8')
        try:
            config = CONFIG_MAPPING[model_type].from_json_file(path).to_dict()
        except (KeyError, TypeError, ValueError, AttributeError, StrictDataclassError):
            return None
    return _without_type(config)


def _without_type(values: dict[str, Any]) -> dict[str, Any]:
    kept = {key: _without_type(value) if _is_dict(value) else value for key, value in values.items()}
    if 'rope_type' in kept:
        kept.pop('type', None)
    return kept
