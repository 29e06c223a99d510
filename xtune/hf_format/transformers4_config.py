"""Write config.json so that transformers 4 reads it as transformers 5 does: some readers are pinned below 5.

Transformers 5 keeps everything about rotary embeddings in `rope_parameters`. Transformers 4 does not read that: it
takes base 10000 and no scaling, in silence. The keys that it reads are added. Transformers 5 reads its own file as
before.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

# What transformers 4 calls the base of the rotary embedding and the share of each head that is rotated.
_THETA, _SHARE = 'rope_theta', 'partial_rotary_factor'
_LENGTH = 'original_max_position_embeddings'  # which it reads outside rope_scaling, for the type `longrope`
_FLAT_NAMES = dict.fromkeys(('gpt_neox', 'gpt_neox_japanese'), ('rotary_emb_base', 'rotary_pct'))
# Models that rotate differently in layers of full and of sliding attention: the names of the two bases.
_LAYER_NAMES = dict.fromkeys(('modernbert', 'modernbert-decoder'), ('global_rope_theta', 'local_rope_theta'))
_FULL, _SLIDING = 'full_attention', 'sliding_attention'
# Models whose config class in transformers 4 takes `type` for `rope_type`, and no other key than these.
_TYPE_ONLY = {
    'olmo': ('factor',),
    'olmo2': ('factor',),
    'phi3': ('short_factor', 'long_factor'),
    'phi4_multimodal': ('short_factor', 'long_factor'),
}
# Hybrid models: the key that lists the kinds of layers, and the older names of the kinds.
_LAYERS = {'granitemoehybrid': 'layer_types', 'zamba2': 'layers_block_type'}
_KINDS = {'linear_attention': 'mamba', _FULL: 'attention'}


def readable_by_v4(folder: Path) -> None:
    """Add to the config.json in `folder` what transformers 4 reads."""
    path = folder / 'config.json'
    values = with_v4_keys(json.loads(path.read_text(encoding='utf-8')))
    path.write_text(json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + '\n', encoding='utf-8')


def with_v4_keys(values: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a config.json of transformers 5, with the keys that transformers 4 reads added.

    Transformers 5 must make the same config of both. A key that it would keep as one more attribute is left out, unless
    transformers 4 cannot do without it. Where the keys change what transformers 5 reads, only the dtype is added.
    """
    before = _read(values)
    if before is None:
        return values
    for written in (_added(values), _with_dtype(values)):
        spare = set(_read(written) or ()) - set(before) - {_LENGTH}
        if written.get(_SHARE) not in (None, 1):
            spare.discard(_SHARE)
        written = {key: value for key, value in written.items() if key not in spare}
        after = _read(written) or {}
        if {key: after.get(key) for key in before} == before:
            return written
    return values


def _with_dtype(values: dict[str, Any]) -> dict[str, Any]:
    """Add the older name of `dtype`, in nested configs too."""
    nested = {key: _with_dtype(value) for key, value in values.items() if key.endswith('_config') and _is_dict(value)}
    return {**(dict(torch_dtype=values['dtype']) if isinstance(values.get('dtype'), str) else {}), **values, **nested}


def _added(values: dict[str, Any]) -> dict[str, Any]:
    """Return `values` with all older keys and spellings, in nested configs too."""
    nested = {key: _added(value) for key, value in values.items() if key.endswith('_config') and _is_dict(value)}
    kind, rope = values.get('model_type', ''), values.get('rope_parameters')
    added: dict[str, Any] = {}
    if _is_dict(rope) and any(_is_dict(value) for value in rope.values()):
        added = _layer_keys(kind, rope)
    elif _is_dict(rope):
        added = _flat_keys(kind, rope, *_FLAT_NAMES.get(kind, (_THETA, _SHARE)))
    if kind == 'qwen3_moe' and 'num_local_experts' in values:
        added['num_experts'] = values['num_local_experts']
    changed = {key: _plain_number(value) for key, value in values.items()} | nested
    if isinstance(values.get(_LAYERS.get(kind)), list):
        changed[_LAYERS[kind]] = [_KINDS.get(layer, layer) for layer in values[_LAYERS[kind]]]
    return {**added, **_with_dtype(changed)}


def _layer_keys(kind: str, rope: dict[str, Any]) -> dict[str, Any]:
    full, sliding = _LAYER_NAMES.get(kind, (_THETA, 'rope_local_base_freq'))
    other = (rope.get(_SLIDING) or {}).get(_THETA)
    return _flat_keys(kind, rope.get(_FULL) or {}, full, _SHARE) | ({} if other is None else {sliding: other})


def _flat_keys(kind: str, rope: dict[str, Any], theta: str, share: str) -> dict[str, Any]:
    keys = {new: rope[old] for old, new in ((_THETA, theta), (_SHARE, share)) if rope.get(old) is not None}
    scaling = {key: value for key, value in rope.items() if key not in (_THETA, _SHARE)}
    name = scaling.get('rope_type', 'default')
    if name == 'default' and set(scaling) <= {'rope_type', 'type'}:
        return keys
    if kind in _TYPE_ONLY:
        scaling = {key: value for key, value in scaling.items() if key in _TYPE_ONLY[kind]} | dict(type=name)
    elif 'type' in scaling:  # transformers 4 prefers it to `rope_type`
        scaling['type'] = name
    if name == 'longrope' and kind not in _TYPE_ONLY and _LENGTH in scaling:
        keys[_LENGTH] = scaling[_LENGTH]
    return keys | dict(rope_scaling=scaling)


def _plain_number(value: Any) -> Any:
    """Return infinity, for which transformers 5 has a spelling of its own, as Python's JSON has it."""
    if isinstance(value, list):
        return [_plain_number(one) for one in value]
    return float(value['__float__']) if _is_dict(value) and set(value) == {'__float__'} else value


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def _read(values: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the installed transformers makes of a config.json; None: it cannot read it.

    `type`, the older name of `rope_type`, is left out.
    """
    from transformers import CONFIG_MAPPING

    from ..utils.quiet import quiet

    kind = values.get('model_type')
    if kind not in CONFIG_MAPPING:
        return None
    with tempfile.TemporaryDirectory() as place, quiet():
        path = Path(place) / 'config.json'
        path.write_text(json.dumps(values), encoding='utf-8')
        try:
            config = CONFIG_MAPPING[kind].from_json_file(path).to_dict()
        except (KeyError, TypeError, ValueError, AttributeError, StrictDataclassError):
            return None
    return _without_type(config)


def _without_type(values: dict[str, Any]) -> dict[str, Any]:
    kept = {key: _without_type(value) if _is_dict(value) else value for key, value in values.items()}
    if 'rope_type' in kept:
        kept.pop('type', None)
    return kept
