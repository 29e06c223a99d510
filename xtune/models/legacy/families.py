"""From an old config.json to the config of the class of transformers that computes the same.

Every size and constant is read from the file. A key that changes the mathematics in a way the class cannot follow is
refused by name; keys that only choose a kernel or a type are left out.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import GlmConfig, LlamaConfig, PreTrainedConfig, Qwen2Config

from ...errors import ModelError
from ..loading.config_json import reason
from .alibi_config import BaichuanAlibiConfig
from .reader import Reader
from .recognise import read_config, variant_of
from .tensors import BAICHUAN, CHATGLM, LLAMA, QWEN, Table


@dataclass(frozen=True)
class Legacy:
    """A folder in an old layout.

    Args:
        rows: Rows of q, k and v in a joined projection.
        norm_head: The head's rows are divided by their length.
        head_from_embedding: The class has a head of its own where the folder shares the embedding.
        note: What differs from the original code beyond `trained_length` tokens; empty if nothing does.
    """

    folder: Path
    variant: str
    original: dict[str, Any]
    config: PreTrainedConfig
    table: Table
    rows: tuple[int, int, int]
    norm_head: bool = False
    head_from_embedding: bool = False
    note: str = ''

    @property
    def trained_length(self) -> int:
        """Tokens up to which native and original code agree."""
        return self.config.max_position_embeddings


def open_legacy(folder: Path, variant: str | None = None) -> Legacy:
    """Return what `folder` holds, native config included; weights are not read.

    Raises:
        ModelError: It is damaged, ambiguous without `variant`, or not supported.
    """
    values = read_config(folder)
    variant = variant_of(folder, values, variant)
    read = Reader(folder, values)
    build = {'internlm': _internlm, 'qwen': _qwen, 'chatglm2': _chatglm, 'chatglm3': _chatglm}.get(variant, _baichuan)
    try:
        return build(read, variant)
    except ModelError:
        raise
    except (ValueError, TypeError, StrictDataclassError) as error:  # the native config checks types and shapes itself
        raise ModelError(f'{folder}/config.json is refused: {reason(error)}') from error


def _internlm(read: Reader, variant: str) -> Legacy:
    rotary = read.values.get('rotary') or {}
    kind = rotary.get('type', 'origin')
    if kind not in ('origin', 'dynamic'):
        raise ModelError(f'{read.folder}/config.json: rotary type `{kind}` is unknown (known: origin, dynamic)')
    rope = dict(rope_type='default', rope_theta=read.number('base', 10000.0, rotary))
    if kind == 'dynamic':
        rope |= dict(rope_type='dynamic', factor=read.number('scaling_factor', 1.0, rotary))
    heads = read.count('num_attention_heads')
    config = LlamaConfig(
        **_llama_sizes(read),
        num_key_value_heads=read.count('num_key_value_heads', heads),
        max_position_embeddings=read.count('max_position_embeddings', 2048),
        attention_bias=bool(read.values.get('bias', True)),
        rope_parameters=rope,
        **read.common(bos_token_id=1, eos_token_id=2, pad_token_id=2),
    )
    note = '' if kind == 'dynamic' else 'positions beyond it are not scaled, as later revisions of the original code do'
    return Legacy(read.folder, variant, read.values, config, LLAMA, _rows(config), note=note)


def _baichuan(read: Reader, variant: str) -> Legacy:
    alibi, second = variant.endswith('13b'), variant.startswith('baichuan2')
    common = read.common(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    tied = common['tie_word_embeddings']
    common['tie_word_embeddings'] = tied and not second  # a normalised head is another matrix than the embedding
    config = (BaichuanAlibiConfig if alibi else LlamaConfig)(
        **_llama_sizes(read),
        num_key_value_heads=read.count('num_attention_heads'),
        max_position_embeddings=read.count('model_max_length' if alibi else 'max_position_embeddings', 4096),
        **({} if alibi else dict(rope_parameters=dict(rope_type='default', rope_theta=10000.0))),
        **common,
    )
    return Legacy(read.folder, variant, read.values, config, BAICHUAN, _rows(config), second, tied and second)


def _llama_sizes(read: Reader) -> dict[str, Any]:
    sizes = ('vocab_size', 'hidden_size', 'intermediate_size', 'num_hidden_layers', 'num_attention_heads')
    return {key: read.count(key) for key in sizes} | dict(
        rms_norm_eps=read.number('rms_norm_eps', 1e-6), hidden_act=read.activation()
    )


def _qwen(read: Reader, variant: str) -> Legacy:
    old = sorted({'n_embd', 'n_layer', 'n_head', 'ffn_hidden_size', 'padded_vocab_size'} & set(read.values))
    if old and 'hidden_size' not in read.values:
        raise ModelError(
            f'{read.folder}/config.json is of the first revision of Qwen, August 2023 (keys {", ".join(old)}), which '
            'is not supported; take a later revision of the repository'
        )
    read.values.setdefault('scale_attn_weights', True)
    read.values.setdefault('rotary_pct', 1.0)
    read.values.setdefault('no_bias', True)
    read.demand('is supported', rotary_pct=1.0, no_bias=True, scale_attn_weights=True)
    both = read.count('intermediate_size')
    if both % 2:
        raise ModelError(f'{read.folder}/config.json: `intermediate_size` counts two halves, so it is even, got {both}')
    heads = read.count('num_attention_heads')
    config = Qwen2Config(
        vocab_size=read.count('vocab_size'),
        hidden_size=read.count('hidden_size'),
        intermediate_size=both // 2,
        num_hidden_layers=read.count('num_hidden_layers'),
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=read.count('kv_channels', 128),
        rms_norm_eps=read.number('layer_norm_epsilon', 1e-6),
        max_position_embeddings=read.count('seq_length', read.values.get('max_position_embeddings')),
        rope_parameters=dict(rope_type='default', rope_theta=read.number('rotary_emb_base', 10000.0)),
        use_sliding_window=False,
        **read.common(),
    )
    note = 'in use, not in training, the original code scales positions and queries beyond it (dynamic NTK, log n)'
    return Legacy(read.folder, variant, read.values, config, QWEN, _rows(config), note=note)


def _chatglm(read: Reader, variant: str) -> Legacy:
    for key, value in dict(rmsnorm=True, post_layer_norm=True, add_bias_linear=False).items():
        read.values.setdefault(key, value)
    read.values.setdefault('apply_residual_connection_post_layernorm', False)
    read.demand('is supported', rmsnorm=True, post_layer_norm=True, original_rope=True, multi_query_attention=True)
    read.demand('is supported', add_bias_linear=False, apply_residual_connection_post_layernorm=False)
    rope = dict(rope_type='default', rope_theta=10000.0, partial_rotary_factor=0.5)
    ratio = read.number('rope_ratio', 1.0)
    if variant == 'chatglm3':
        rope['rope_theta'] *= ratio
    elif ratio != 1:
        rope |= dict(rope_type='linear', factor=ratio)
    if read.count('kv_channels', 128) % 4:
        width = read.count('kv_channels')
        raise ModelError(
            f'{read.folder}/config.json: half of `kv_channels` is turned in pairs, so 4 divides it, got {width}'
        )
    common = read.common(eos_token_id=2, pad_token_id=0)
    tied = common.pop('tie_word_embeddings')
    config = GlmConfig(
        vocab_size=read.count('padded_vocab_size'),
        hidden_size=read.count('hidden_size'),
        intermediate_size=read.count('ffn_hidden_size'),
        num_hidden_layers=read.count('num_layers'),
        num_attention_heads=read.count('num_attention_heads'),
        num_key_value_heads=read.count('multi_query_group_num'),
        head_dim=read.count('kv_channels', 128),
        rms_norm_eps=read.number('layernorm_epsilon', 1e-5),
        max_position_embeddings=read.count('seq_length', 2048),
        attention_bias=bool(read.values.get('add_qkv_bias', False)),
        rope_parameters=rope,
        tie_word_embeddings=False,  # the original code has an output layer even where the config says tied
        **common,
    )
    return Legacy(read.folder, variant, read.values, config, CHATGLM, _rows(config), head_from_embedding=tied)


def _rows(config: PreTrainedConfig) -> tuple[int, int, int]:
    """Return the rows of q, k and v."""
    width = getattr(config, 'head_dim', None) or config.hidden_size // config.num_attention_heads
    keys = config.num_key_value_heads * width
    return config.num_attention_heads * width, keys, keys
