"""Translate the config.json of a 2023 remote-code checkpoint to the config of an equivalent class of transformers.

Every size and constant is read from the file. A key that changes the computation in a way that the class does not
support is refused by name; keys that only choose a kernel or a type are ignored.
"""

from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import GlmConfig, LlamaConfig, PreTrainedConfig, Qwen2Config

from ...errors import ModelError
from ..loading.config_json import reason
from ..loading.json_files import read_config
from .alibi_config import BaichuanAlibiConfig
from .checkpoint import LegacyCheckpoint
from .config_reader import ConfigReader
from .tensors import BAICHUAN, CHATGLM, LLAMA, QWEN
from .variants import variant_of


def open_legacy(folder: Path, variant: str | None = None) -> LegacyCheckpoint:
    """Return the description of the checkpoint in `folder`, with its native config; do not read weights.

    Raises:
        ModelError: It is damaged, ambiguous without `variant`, or not supported.
    """
    values = read_config(folder)
    variant = variant_of(folder, values, variant)
    reader = ConfigReader(folder, values)
    build = {'internlm': _internlm, 'qwen': _qwen, 'chatglm2': _chatglm, 'chatglm3': _chatglm}.get(variant, _baichuan)
    try:
        return build(reader, variant)
    except ModelError:
        raise
    except (ValueError, TypeError, StrictDataclassError) as error:  # validation of the native config class
        raise ModelError(f'{folder}/config.json is invalid: {reason(error)}') from error


def _internlm(reader: ConfigReader, variant: str) -> LegacyCheckpoint:
    rotary = reader.values.get('rotary') or {}
    rope_type = rotary.get('type', 'origin')
    if rope_type not in ('origin', 'dynamic'):
        raise ModelError(f'{reader.folder}/config.json: rotary type `{rope_type}` is unknown (known: origin, dynamic)')
    rope = dict(rope_type='default', rope_theta=reader.number('base', 10000.0, rotary))
    if rope_type == 'dynamic':
        rope |= dict(rope_type='dynamic', factor=reader.number('scaling_factor', 1.0, rotary))
    heads = reader.count('num_attention_heads')
    config = LlamaConfig(
        **_llama_sizes(reader),
        num_key_value_heads=reader.count('num_key_value_heads', heads),
        max_position_embeddings=reader.count('max_position_embeddings', 2048),
        attention_bias=bool(reader.values.get('bias', True)),
        rope_parameters=rope,
        **reader.common(bos_token_id=1, eos_token_id=2, pad_token_id=2),
    )
    note = 'positions beyond it are not scaled, unlike in later revisions of the original code'
    note = '' if rope_type == 'dynamic' else note
    return LegacyCheckpoint(reader.folder, variant, reader.values, config, LLAMA, _qkv_rows(config), note=note)


def _baichuan(reader: ConfigReader, variant: str) -> LegacyCheckpoint:
    alibi, second_generation = variant.endswith('13b'), variant.startswith('baichuan2')
    common = reader.common(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    tied = common['tie_word_embeddings']
    common['tie_word_embeddings'] = tied and not second_generation  # a normalized lm_head is a separate matrix
    config = (BaichuanAlibiConfig if alibi else LlamaConfig)(
        **_llama_sizes(reader),
        num_key_value_heads=reader.count('num_attention_heads'),
        max_position_embeddings=reader.count('model_max_length' if alibi else 'max_position_embeddings', 4096),
        **({} if alibi else dict(rope_parameters=dict(rope_type='default', rope_theta=10000.0))),
        **common,
    )
    return LegacyCheckpoint(
        reader.folder,
        variant,
        reader.values,
        config,
        BAICHUAN,
        _qkv_rows(config),
        norm_head=second_generation,
        head_from_embedding=tied and second_generation,
    )


def _llama_sizes(reader: ConfigReader) -> dict[str, Any]:
    sizes = ('vocab_size', 'hidden_size', 'intermediate_size', 'num_hidden_layers', 'num_attention_heads')
    return {key: reader.count(key) for key in sizes} | dict(
        rms_norm_eps=reader.number('rms_norm_eps', 1e-6), hidden_act=reader.activation()
    )


def _qwen(reader: ConfigReader, variant: str) -> LegacyCheckpoint:
    old = sorted({'n_embd', 'n_layer', 'n_head', 'ffn_hidden_size', 'padded_vocab_size'} & set(reader.values))
    if old and 'hidden_size' not in reader.values:
        raise ModelError(
            f'{reader.folder}/config.json is of the first revision of Qwen, August 2023 (keys {", ".join(old)}), which '
            'is not supported; use a later revision of the repository'
        )
    reader.values.setdefault('scale_attn_weights', True)
    reader.values.setdefault('rotary_pct', 1.0)
    reader.values.setdefault('no_bias', True)
    reader.require(rotary_pct=1.0, no_bias=True, scale_attn_weights=True)
    gate_and_up = reader.count('intermediate_size')
    if gate_and_up % 2:
        raise ModelError(
            f'{reader.folder}/config.json: `intermediate_size` is the sum of two halves and must be even, got '
            f'{gate_and_up}'
        )
    heads = reader.count('num_attention_heads')
    config = Qwen2Config(
        vocab_size=reader.count('vocab_size'),
        hidden_size=reader.count('hidden_size'),
        intermediate_size=gate_and_up // 2,
        num_hidden_layers=reader.count('num_hidden_layers'),
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=reader.count('kv_channels', 128),
        rms_norm_eps=reader.number('layer_norm_epsilon', 1e-6),
        max_position_embeddings=reader.count('seq_length', reader.values.get('max_position_embeddings')),
        rope_parameters=dict(rope_type='default', rope_theta=reader.number('rotary_emb_base', 10000.0)),
        use_sliding_window=False,
        **reader.common(),
    )
    note = (
        'in inference, not in training, the original code scales positions and queries beyond it (dynamic NTK, log n)'
    )
    return LegacyCheckpoint(reader.folder, variant, reader.values, config, QWEN, _qkv_rows(config), note=note)


def _chatglm(reader: ConfigReader, variant: str) -> LegacyCheckpoint:
    for key, value in dict(rmsnorm=True, post_layer_norm=True, add_bias_linear=False).items():
        reader.values.setdefault(key, value)
    reader.values.setdefault('apply_residual_connection_post_layernorm', False)
    reader.require(rmsnorm=True, post_layer_norm=True, original_rope=True, multi_query_attention=True)
    reader.require(add_bias_linear=False, apply_residual_connection_post_layernorm=False)
    rope = dict(rope_type='default', rope_theta=10000.0, partial_rotary_factor=0.5)
    ratio = reader.number('rope_ratio', 1.0)
    if variant == 'chatglm3':
        rope['rope_theta'] *= ratio
    elif ratio != 1:
        rope |= dict(rope_type='linear', factor=ratio)
    if reader.count('kv_channels', 128) % 4:
        raise ModelError(
            f'{reader.folder}/config.json: `kv_channels` must be a multiple of 4, because half of the dimensions are '
            f'rotated in pairs, got {reader.count("kv_channels")}'
        )
    common = reader.common(eos_token_id=2, pad_token_id=0)
    tied = common.pop('tie_word_embeddings')
    config = GlmConfig(
        vocab_size=reader.count('padded_vocab_size'),
        hidden_size=reader.count('hidden_size'),
        intermediate_size=reader.count('ffn_hidden_size'),
        num_hidden_layers=reader.count('num_layers'),
        num_attention_heads=reader.count('num_attention_heads'),
        num_key_value_heads=reader.count('multi_query_group_num'),
        head_dim=reader.count('kv_channels', 128),
        rms_norm_eps=reader.number('layernorm_epsilon', 1e-5),
        max_position_embeddings=reader.count('seq_length', 2048),
        attention_bias=bool(reader.values.get('add_qkv_bias', False)),
        rope_parameters=rope,
        tie_word_embeddings=False,  # the original code has an output layer even if the config is tied
        **common,
    )
    return LegacyCheckpoint(
        reader.folder, variant, reader.values, config, CHATGLM, _qkv_rows(config), head_from_embedding=tied
    )


def _qkv_rows(config: PreTrainedConfig) -> tuple[int, int, int]:
    """Return the rows of q, k and v."""
    head_dim = getattr(config, 'head_dim', None) or config.hidden_size // config.num_attention_heads
    kv_rows = config.num_key_value_heads * head_dim
    return config.num_attention_heads * head_dim, kv_rows, kv_rows
