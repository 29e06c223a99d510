"""The table of models: what each one's published config.json says, and how it is shrunk.

The values themselves are shipped with xtune (`xtune/planning/published_configs.json`). `copies.json` has what copies
need beside them: `tokenizer` names an entry of `tokenizers.json`; `layers` is the depth of the copy where two layers do
not show every kind. `like` takes the values of another entry first.
"""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

from xtune.planning import published_configs

HERE = Path(__file__).parent
OURS = (*published_configs.TABLE_KEYS, 'tokenizer', 'layers')
# Keys that a class has no default for, and its layers read where config.json has them.
UNDECLARED = {'qwen3_moe': ('head_dim',)}
WIDTH, INNER, EXPERT, WINDOW = 64, 128, 32, 32
# Sizes that only cost memory, and what they become; ranks of latent attention stay below the width.
SMALL = {
    'intermediate_size': INNER,
    'ffn_hidden_size': INNER,
    'n_inner': INNER,
    'moe_intermediate_size': EXPERT,
    'q_lora_rank': 32,
    'kv_lora_rank': 16,
    'kv_channels': 16,
}
# Keys of groups of heads, and of a head's own width.
_GROUPS = ('num_key_value_heads', 'multi_query_group_num')
_HEAD_WIDTHS = ('head_dim', 'qk_nope_head_dim', 'kv_channels')
_DEPTHS = ('num_hidden_layers', 'num_layers', 'n_layer')


@cache
def entries(file: str = '') -> dict[str, dict[str, Any]]:
    """Return each entry of a table of this folder; without a name, of the models with what their copies need."""
    if file:
        return published_configs.with_likes(json.loads((HERE / file).read_text(encoding='utf-8')))
    return {name: {**values, **entries('copies.json')[name]} for name, values in published_configs.entries().items()}


def published(part: str) -> dict[str, Any]:
    """Return the values of config.json of a model part."""
    return {key: value for key, value in entries()[part].items() if key not in OURS}


def unknown_keys(part: str) -> list[str]:
    """Return the keys of a model part that its config class has no attribute for."""
    from transformers import CONFIG_MAPPING

    kind = entries()[part]['type']
    default = CONFIG_MAPPING[kind]()
    return [key for key in published(part) if not hasattr(default, key) and key not in UNDECLARED.get(kind, ())]


def shrunken(part: str) -> dict[str, Any]:
    """Return the values of config.json of a copy: the same flags and ratios, small sizes, two layers."""
    real, depth = published(part), entries()[part].get('layers', 2)
    small = {key: SMALL[key] if key in SMALL and value is not None else value for key, value in real.items()}
    small |= {key: depth for key in _DEPTHS if key in real}
    small |= _attention(real)
    if real.get('sliding_window') and real['sliding_window'] < real['max_position_embeddings']:
        small['sliding_window'] = WINDOW  # shorter than a training sequence, so that it matters
    if 'rope_parameters' in real:
        small['rope_parameters'] = published_configs.with_factors(real['rope_parameters'], small)
    return small


def _attention(real: dict[str, Any]) -> dict[str, Any]:
    """Return width and heads: heads per group as in the real model; a head's width too where config.json has it."""
    if 'n_head' in real:
        return dict(n_head=4, n_embd=WIDTH)
    if 'model_max_length' in real and 'max_position_embeddings' not in real:
        # ALiBi's slopes differ where the heads are no power of two, as 40 are none.
        return dict(num_attention_heads=6, hidden_size=96)
    groups_key = next((key for key in _GROUPS if key in real), None)
    if groups_key is None:
        return dict(num_attention_heads=4, hidden_size=WIDTH)
    heads, groups = real['num_attention_heads'], real[groups_key]
    kept = 4 if groups == heads else min(groups, 2)
    count = heads // groups * kept
    made = {'num_attention_heads': count, groups_key: kept}
    if any(real.get(key) for key in _HEAD_WIDTHS):
        step = math.lcm(count, 8)
        return {**made, 'hidden_size': -(-WIDTH // step) * step}
    return {**made, 'hidden_size': count * (16 if count <= 8 else 8)}
