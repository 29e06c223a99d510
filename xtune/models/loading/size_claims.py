"""Sizes that a config.json or adapter_config.json claims, against the numbers that the weight files hold.

A model is allocated by what its config says. A damaged or forged one would take all memory before a shape is compared,
so each claim is turned into the fewest numbers that a model of that size has.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import ModelError
from .weight_files import ADAPTER_STEMS, WeightFiles, headers

# The names that model families have for one size.
_HIDDEN = ('hidden_size', 'n_embd', 'd_model', 'dim')
_ROWS = ('vocab_size', 'padded_vocab_size')
_LAYERS = ('num_hidden_layers', 'num_layers', 'n_layer', 'n_layers', 'depth')
_INNER = ('intermediate_size', 'ffn_hidden_size', 'n_inner', 'ffn_dim', 'moe_intermediate_size')
_EXPERTS = ('num_experts', 'num_local_experts', 'n_routed_experts', 'moe_num_experts')
_HEADS = ('num_attention_heads', 'num_key_value_heads')
_POSITIONS = ('n_positions', 'max_position_embeddings', 'seq_length')
_POSITION_TABLES = ('wpe', 'embed_positions', 'position_embeddings')
# A shared matrix is counted twice, and a layer may have fewer numbers than two square matrices.
_SLACK = 2
# Models whose images or audio were left out often keep the configs of these.
_TEXT = ('', 'text_config', 'llm_config', 'language_config')
_SLACK_OF_OTHERS = 1000
_BITS = {'F32': 32, 'I32': 32, 'F16': 16, 'BF16': 16, 'I16': 16, 'I8': 8, 'U8': 8}
# Ranks of an adapter, by the option that holds them; each allocates at least one number a unit.
_RANKS = ('r', 'init_r', 'num_virtual_tokens', 'num_layers', 'encoder_hidden_size')


def refuse_claims(folder: Path, values: dict[str, Any], weights: WeightFiles) -> None:
    """Refuse a config.json, of content `values`, that calls for far more numbers than the files `weights` hold.

    Raises:
        ModelError: It does.
    """
    held = _held(weights, bool(values.get('quantization_config')))
    tables = any(part in name for name in weights.shapes for part in _POSITION_TABLES)
    for name, part in _parts(values):
        numbers, what = max(_claims(part, tables), default=(0, ''))
        if numbers > held * (_SLACK if name in _TEXT else _SLACK_OF_OTHERS):
            raise ModelError(
                f'{folder}/config.json has {name and name + ": "}{what}, for which a model needs at least {numbers:,} '
                f'numbers; the weight files hold {held:,}: they are not of one model. Copy config.json again from '
                'where the weights came from'
            )


def check_adapter_files(folder: Path, values: dict[str, Any]) -> None:
    """Refuse the weights of an adapter that cannot be read, and an adapter_config.json that claims more than they hold.

    Only headers are read, and no code in a .bin is executed.

    Args:
        folder: A folder with adapter_config.json, of content `values`.

    Raises:
        ModelError: A file is missing or damaged, holds code, or is of a smaller adapter than `values` says.
    """
    path = next((folder / stem for stem in ADAPTER_STEMS if (folder / stem).is_file()), None)
    if path is None:
        raise ModelError(f'{folder} has an adapter_config.json but no {ADAPTER_STEMS[0]}')
    shapes = {name: shape for name, (shape, _) in headers(path).items()}
    if not shapes:
        raise ModelError(f'{path} holds no tensors; copy it again')
    ranks = {key: values[key] for key in _RANKS if _is_count(values.get(key))}
    pattern = values.get('rank_pattern') or {}
    if isinstance(pattern, dict):
        ranks |= {f'rank_pattern {key}': rank for key, rank in pattern.items() if _is_count(rank)}
    # With a pattern no layer need have the rank `r`, and other kinds of adapters lay theirs out in other ways.
    lora = values.get('peft_type') == 'LORA' and not pattern
    rows = [shape[0] for name, shape in shapes.items() if re.search(r'\blora_(embedding_)?A\b', name) and shape]
    limit = max(rows) if lora and rows else sum(map(math.prod, shapes.values()))
    key = max(ranks, key=lambda key: ranks[key], default='')
    if key and ranks[key] > limit:
        raise ModelError(
            f'{folder}/adapter_config.json has {key}={ranks[key]}, and {path.name} holds an adapter of at most '
            f'{limit:,}: they do not belong together. Copy both again from where the adapter came from'
        )


def _held(weights: WeightFiles, quantised: bool) -> int:
    """Return how many numbers the files hold at most: one for each bit where a config says that they are packed."""
    return sum(
        math.prod(shape) * (_BITS.get(weights.dtypes[name], 64) if quantised else 1)
        for name, shape in weights.shapes.items()
    )


def _parts(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a config, without a name, and the configs of its parts with theirs: of the text, of images."""
    yield '', values
    for key, part in values.items():
        if key.endswith('_config') and key != 'quantization_config' and isinstance(part, dict):
            yield key, part


def _claims(part: dict[str, Any], tables: bool) -> Iterator[tuple[int, str]]:
    """Yield the fewest numbers that a size calls for, and the size in words."""
    found, hidden = _largest(part, _HIDDEN) or ('', 1)
    beside = f' with {found}={hidden}' if found else ''
    # A row of each; a square matrix of each layer; a matrix of the smallest expert.
    across = ((_ROWS, hidden), (_LAYERS, hidden * hidden), (_INNER, hidden), (_EXPERTS, hidden))
    for names, each in across + (((_POSITIONS, hidden),) if tables else ()):
        size = _largest(part, names)
        if size is not None:
            yield size[1] * each, f'{size[0]}={size[1]}{beside}'
    heads, width = _largest(part, _HEADS), part.get('head_dim')
    if heads is not None and _is_count(width):
        yield heads[1] * width * hidden, f'{heads[0]}={heads[1]} with head_dim={width}'
    if found:
        yield hidden * hidden, f'{found}={hidden}'


def _largest(part: dict[str, Any], names: tuple[str, ...]) -> tuple[str, int] | None:
    known = [(name, part[name]) for name in names if _is_count(part.get(name))]
    return max(known, key=lambda item: item[1], default=None)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
