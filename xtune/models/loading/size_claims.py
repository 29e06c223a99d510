"""Compare the sizes in config.json or adapter_config.json with the number of elements in the weight files.

A model is allocated according to its config. A damaged or forged config would exhaust memory before any shape is
compared, so each size is converted to the minimum number of elements of a model of that size.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import ModelError
from .weight_files import ADAPTER_STEMS, WeightFiles, headers

# Names of the same size in different model families.
_HIDDEN = ('hidden_size', 'n_embd', 'd_model', 'dim')
_ROWS = ('vocab_size', 'padded_vocab_size')
_LAYERS = ('num_hidden_layers', 'num_layers', 'n_layer', 'n_layers', 'depth')
_INNER = ('intermediate_size', 'ffn_hidden_size', 'n_inner', 'ffn_dim', 'moe_intermediate_size')
_EXPERTS = ('num_experts', 'num_local_experts', 'n_routed_experts', 'moe_num_experts')
_HEADS = ('num_attention_heads', 'num_key_value_heads')
_POSITIONS = ('n_positions', 'max_position_embeddings', 'seq_length')
_POSITION_TABLES = ('wpe', 'embed_positions', 'position_embeddings')
# A tied matrix is counted twice, and a layer may have fewer elements than two square matrices.
_SLACK = 2
# Text-only versions of multimodal models often keep the configs of the removed image or audio encoders.
_TEXT = ('', 'text_config', 'llm_config', 'language_config')
_NON_TEXT_SLACK = 1000
_BITS = {'F32': 32, 'I32': 32, 'F16': 16, 'BF16': 16, 'I16': 16, 'I8': 8, 'U8': 8}
# Options that are sizes of an adapter; each allocates at least one element a unit.
_RANKS = ('r', 'init_r', 'num_virtual_tokens', 'num_layers', 'encoder_hidden_size')


def check_config_sizes(folder: Path, values: dict[str, Any], weights: WeightFiles) -> None:
    """Refuse a config.json with the content `values` that requires far more elements than `weights` contains.

    Raises:
        ModelError: It requires too many.
    """
    available = _max_elements(weights, bool(values.get('quantization_config')))
    has_position_table = any(part in name for name in weights.shapes for part in _POSITION_TABLES)
    for name, config in _with_nested_configs(values):
        required, size = max(_min_elements(config, has_position_table), default=(0, ''))
        if required > available * (_SLACK if name in _TEXT else _NON_TEXT_SLACK):
            raise ModelError(
                f'{folder}/config.json has {name and name + ": "}{size}, for which a model needs at least {required:,} '
                f'elements; the weight files contain {available:,}: they do not belong to the same model. Copy '
                'config.json again from the source of the weights'
            )


def check_adapter_files(folder: Path, values: dict[str, Any]) -> None:
    """Refuse adapter weights that cannot be read, and an adapter_config.json that requires larger ones.

    Read only headers, and execute no code of a .bin file.

    Args:
        folder: An adapter folder.
        values: The content of its adapter_config.json.

    Raises:
        ModelError: A file is missing or damaged, contains code, or belongs to a smaller adapter than `values`.
    """
    path = next((folder / stem for stem in ADAPTER_STEMS if (folder / stem).is_file()), None)
    if path is None:
        raise ModelError(f'{folder} has an adapter_config.json but no {ADAPTER_STEMS[0]}')
    shapes = {name: shape for name, (shape, _) in headers(path).items()}
    if not shapes:
        raise ModelError(f'{path} contains no tensors; copy it again')
    ranks = {key: values[key] for key in _RANKS if _is_count(values.get(key))}
    pattern = values.get('rank_pattern') or {}
    if isinstance(pattern, dict):
        ranks |= {f'rank_pattern {key}': rank for key, rank in pattern.items() if _is_count(rank)}
    # With rank_pattern no layer has to have the rank `r`, and other adapter types have other layouts.
    is_plain_lora = values.get('peft_type') == 'LORA' and not pattern
    stored_ranks = [shape[0] for name, shape in shapes.items() if re.search(r'\blora_(embedding_)?A\b', name) and shape]
    limit = max(stored_ranks) if is_plain_lora and stored_ranks else sum(map(math.prod, shapes.values()))
    key = max(ranks, key=lambda key: ranks[key], default='')
    if key and ranks[key] > limit:
        raise ModelError(
            f'{folder}/adapter_config.json has {key}={ranks[key]}, and {path.name} contains an adapter of at most '
            f'{limit:,}: they do not belong together. Copy both again from the source of the adapter'
        )


def _max_elements(weights: WeightFiles, quantized: bool) -> int:
    """Return an upper bound of the elements in the files; each bit of a quantized weight may be one."""
    return sum(
        math.prod(shape) * (_BITS.get(weights.dtypes[name], 64) if quantized else 1)
        for name, shape in weights.shapes.items()
    )


def _with_nested_configs(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ('', config), then key and value of each nested config, such as text_config and vision_config."""
    yield '', values
    for key, config in values.items():
        if key.endswith('_config') and key != 'quantization_config' and isinstance(config, dict):
            yield key, config


def _min_elements(config: dict[str, Any], has_position_table: bool) -> Iterator[tuple[int, str]]:
    """Yield, for each size in `config`, the minimum number of elements it requires and a text that names it."""
    hidden_name, hidden = _largest(config, _HIDDEN) or ('', 1)
    suffix = f' with {hidden_name}={hidden}' if hidden_name else ''
    # One row per token and intermediate unit, a square matrix per layer, a matrix of the smallest expert.
    elements_each = ((_ROWS, hidden), (_LAYERS, hidden * hidden), (_INNER, hidden), (_EXPERTS, hidden))
    for names, elements in elements_each + (((_POSITIONS, hidden),) if has_position_table else ()):
        size = _largest(config, names)
        if size is not None:
            yield size[1] * elements, f'{size[0]}={size[1]}{suffix}'
    heads, head_dim = _largest(config, _HEADS), config.get('head_dim')
    if heads is not None and _is_count(head_dim):
        yield heads[1] * head_dim * hidden, f'{heads[0]}={heads[1]} with head_dim={head_dim}'
    if hidden_name:
        yield hidden * hidden, f'{hidden_name}={hidden}'


def _largest(config: dict[str, Any], names: tuple[str, ...]) -> tuple[str, int] | None:
    sizes = [(name, config[name]) for name in names if _is_count(config.get(name))]
    return max(sizes, key=lambda item: item[1], default=None)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
