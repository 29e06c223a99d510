"""The published config.json of each model, and its values for a small copy.

The published values are part of xtune (`xtune/planning/published_configs.json`). `model_copies.json` has the additional
keys for copies: `tokenizer` is an entry of `tokenizers.json`; `layers` is the number of layers, if two layers do not
cover all layer types. An entry with `like` starts from the values of another entry.
"""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

from xtune.planning import published_configs

HERE = Path(__file__).parent
NOT_IN_CONFIG_JSON = (*published_configs.TABLE_KEYS, 'tokenizer', 'layers')
# Keys without a default in the config class that the layers use if config.json has them.
UNDECLARED = {'qwen3_moe': ('head_dim',)}
HIDDEN_SIZE, MLP_SIZE, EXPERT_SIZE, WINDOW = 64, 128, 32, 32
# Sizes that only affect memory, and their small values; ranks of latent attention stay below the hidden size.
SMALL_SIZES = {
    'intermediate_size': MLP_SIZE,
    'ffn_hidden_size': MLP_SIZE,
    'n_inner': MLP_SIZE,
    'moe_intermediate_size': EXPERT_SIZE,
    'q_lora_rank': 32,
    'kv_lora_rank': 16,
    'kv_channels': 16,
}
# Keys for the number of key-value heads, for head dimensions, and for the number of layers.
_KV_HEADS = ('num_key_value_heads', 'multi_query_group_num')
_HEAD_DIMS = ('head_dim', 'qk_nope_head_dim', 'kv_channels')
_NUM_LAYERS = ('num_hidden_layers', 'num_layers', 'n_layer')


@cache
def entries(file: str = '') -> dict[str, dict[str, Any]]:
    """Return the entries of a JSON file in this folder; without `file`, those of the models, with keys for copies."""
    if file:
        return published_configs.with_likes(json.loads((HERE / file).read_text(encoding='utf-8')))
    return {
        name: {**values, **entries('model_copies.json')[name]} for name, values in published_configs.entries().items()
    }


def published(part: str) -> dict[str, Any]:
    """Return the published values of config.json of model `part`."""
    return {key: value for key, value in entries()[part].items() if key not in NOT_IN_CONFIG_JSON}


def unknown_keys(part: str) -> list[str]:
    """Return the keys of model `part` that are not attributes of its config class."""
    from transformers import CONFIG_MAPPING

    model_type = entries()[part]['type']
    default = CONFIG_MAPPING[model_type]()
    return [key for key in published(part) if not hasattr(default, key) and key not in UNDECLARED.get(model_type, ())]


def small_values(part: str) -> dict[str, Any]:
    """Return the values of config.json for a copy: the same flags and ratios, small sizes, usually two layers."""
    real, num_layers = published(part), entries()[part].get('layers', 2)
    small = {
        key: SMALL_SIZES[key] if key in SMALL_SIZES and value is not None else value for key, value in real.items()
    }
    small |= {key: num_layers for key in _NUM_LAYERS if key in real}
    small |= _attention(real)
    if real.get('sliding_window') and real['sliding_window'] < real['max_position_embeddings']:
        small['sliding_window'] = WINDOW  # shorter than a training sequence, so that the window has an effect
    if 'rope_parameters' in real:
        small['rope_parameters'] = published_configs.with_factors(real['rope_parameters'], small)
    return small


def _attention(real: dict[str, Any]) -> dict[str, Any]:
    """Return hidden size and heads, with as many heads per key-value head as the real model."""
    if 'n_head' in real:
        return dict(n_head=4, n_embd=HIDDEN_SIZE)
    if 'model_max_length' in real and 'max_position_embeddings' not in real:
        # ALiBi computes slopes differently if the number of heads is not a power of two; the real model has 40.
        return dict(num_attention_heads=6, hidden_size=96)
    kv_key = next((key for key in _KV_HEADS if key in real), None)
    if kv_key is None:
        return dict(num_attention_heads=4, hidden_size=HIDDEN_SIZE)
    real_heads, real_kv_heads = real['num_attention_heads'], real[kv_key]
    kv_heads = 4 if real_kv_heads == real_heads else min(real_kv_heads, 2)
    heads = real_heads // real_kv_heads * kv_heads
    values = {'num_attention_heads': heads, kv_key: kv_heads}
    if any(real.get(key) for key in _HEAD_DIMS):
        step = math.lcm(heads, 8)
        return {**values, 'hidden_size': -(-HIDDEN_SIZE // step) * step}
    return {**values, 'hidden_size': heads * (16 if heads <= 8 else 8)}
