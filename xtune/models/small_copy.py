"""Small random models with the structure of a config: what they do tells what the full model does.

Sizes are replaced by the names of config fields. Every kind of layer occurs once. What else the config says (types of
positions, switches, periods of layers) stays as it is.
"""

import copy
from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig, PreTrainedModel

from ..compat.transformers_private import from_config
from ..utils.quiet import quiet

# Small value -> names of the config fields that get it.
_NAMES = {
    1: """
        n_group topk_group num_expert_group n_shared_experts num_shared_experts mamba_n_groups mamba_ngroups
    """,
    2: """
        num_hidden_layers n_layer n_layers num_layers decoder_layers num_blocks encoder_layers num_encoder_layers
        num_decoder_layers num_key_value_heads num_kv_heads swa_num_key_value_heads num_global_key_value_heads
        num_experts_per_tok num_experts_per_token moe_topk moe_k linear_num_key_heads linear_num_heads
    """,
    4: """
        num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads
        num_encoder_attention_heads num_decoder_attention_heads attention_heads swa_num_attention_heads num_experts
        n_routed_experts num_local_experts moe_num_experts zero_expert_num linear_num_value_heads mamba_n_heads
        mamba_num_heads n_mamba_heads time_step_rank mamba_dt_rank
    """,
    8: """
        head_dim kv_channels attention_head_size dim_head d_head swa_head_dim global_head_dim qk_rope_head_dim
        qk_nope_head_dim v_head_dim index_head_dim kv_lora_rank q_lora_rank o_lora_rank index_n_heads mamba_d_state
        ssm_state_size state_size linear_key_head_dim linear_value_head_dim rotary_dim
    """,
    16: """
        qk_head_dim linear_head_dim mamba_d_head mamba_head_dim mamba_headdim mamba_chunk_size chunk_size block_size
    """,
    32: """
        hidden_size n_embd d_model n_embed embedding_size dim word_embed_proj_dim input_embedding_size
        output_embedding_size attention_hidden_size lru_width embedding_dim moe_intermediate_size
        shared_expert_intermediate_size shared_intermediate_size shared_experts_intermediate_size
        expert_ffn_hidden_size moe_shared_expert_intermediate_size
    """,
    64: """
        intermediate_size ffn_dim n_inner decoder_ffn_dim encoder_ffn_dim dff dim_ff d_inner ffn_hidden_size
        dense_intermediate_size intermediate_size_mlp mamba_d_ssm emb_dim feed_forward_size max_position_embeddings
        n_positions n_ctx max_seq_len max_target_positions context_length
    """,
}
SIZES: dict[str, int] = {name: value for value, names in _NAMES.items() for name in names.split()}
VOCABULARIES = ('vocab_size', 'vocab_size_per_layer_input', 'unpadded_vocab_size', 'decoder_vocab_size')
# Lists with an entry for each layer.
PER_LAYER = ('layer_types', 'mlp_layer_types', 'layers_block_type', 'indexer_types')
# Ids of the vocabulary of a copy.
VOCABULARY = 96
# Standard deviation of the matrices of a copy. With the usual 0.02, layers hardly change what they get.
SPREAD = 0.3


def small_copy(config: PreTrainedConfig, device: torch.device, attention: str | None = None) -> PreTrainedModel | None:
    """Return a small random model of the structure of `config`; None: it cannot be built.

    Args:
        config: Of the full model.
        device: Where it shall be, in float32.
        attention: Its attention implementation; None: the default of its class.
    """
    chosen = {} if attention is None else {'attn_implementation': attention}
    config = config.get_text_config()
    kind = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if kind is None:
        return None
    # A config may hold numbers that do not go with small sizes: then with those of its class.
    for numbers in (True, False):
        try:
            with quiet(), torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                small = small_config(config, numbers=numbers)
                model = from_config(kind, small, dtype=torch.float32, **chosen)
                return sharpened(model).to(device)
        except Exception:
            continue  # configs and models of any author, which check themselves by errors of any kind
    return None


def small_config(
    config: PreTrainedConfig, vocabulary: int = VOCABULARY, numbers: bool = True, **changes: Any
) -> PreTrainedConfig:
    """Return a small config of the class and the structure of `config`.

    Args:
        config: The config.
        vocabulary: Token ids.
        numbers: Numbers that are no sizes stay as they are in `config`; otherwise they are those of its class.
        changes: Values that replace those chosen here; a dict for a nested config.
    """
    default, kind = type(config)(), type(config)
    # Not by getattr: some configs refuse to name a value that differs between layers.
    own = {name: value for name, value in vars(config).items() if not name.startswith('_')}
    same = (bool, str, int, float) if numbers else (bool, str)
    values = {name: value for name, value in own.items() if _differs(value, default, name, same)}
    names = set(own) | set(kind.attribute_map)
    values |= {name: _at_most(value, own.get(name)) for name, value in SIZES.items() if name in names}
    values |= {name: vocabulary for name in VOCABULARIES if name in names}
    heads = own.get('num_attention_heads')
    every = 'kv_lora_rank' in names or (heads is not None and heads == own.get('num_key_value_heads'))
    if every and 'num_key_value_heads' in values:  # every head has keys of its own
        values['num_key_value_heads'] = values['num_attention_heads']
    if own.get('is_decoder') is False:
        values['is_decoder'] = True
    tokens = [name for name in own if name.endswith(('_token_id', '_token_index'))]
    values |= {name: None if own[name] is None else _token(own[name]) for name in tokens}
    values |= _one_of_each(own, names)
    for name, sub in kind.sub_configs.items():
        if name in ('text_config', 'decoder'):
            inner = own.get(name) or sub()
            values[name] = small_config(inner, vocabulary, numbers, **changes.get(name, {})).to_dict()
    values |= {name: value for name, value in changes.items() if name not in kind.sub_configs or name not in values}
    return kind(**copy.deepcopy(values))


def sharpened(model: PreTrainedModel, spread: float = SPREAD) -> PreTrainedModel:
    """Return `model`, whose matrices have random values of the standard deviation `spread`, in evaluation mode."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and not name.endswith('A_log'):
                parameter.normal_(std=spread)
    return model.eval()


def _at_most(size: int, own: Any) -> int:
    """Return a size; small ones are counts, of experts or heads, which may be even fewer in the config."""
    return min(size, own) if type(own) is int and size <= 4 else size


def _token(own: Any) -> int:
    return min(own, 2) if type(own) is int else 2


def _differs(value: Any, default: PreTrainedConfig, name: str, same: tuple[type, ...]) -> bool:
    """Return whether a config's value is one that a copy takes over."""
    skipped = name in ('dtype', 'transformers_version', 'model_type', '_name_or_path', 'use_cache')
    return type(value) in same and not skipped and value != vars(default).get(name)


def _one_of_each(own: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Return the number of layers and the lists with an entry for each of them: every combination once."""
    if own.get('attention_types'):  # of GPT-Neo: pairs of kinds and how often they are repeated
        kinds = own['attention_types'][0][0]
        return {'attention_types': [[kinds, 1]], 'num_layers': len(kinds)}
    lists = [name for name in PER_LAYER if own.get(name)]
    if not lists:
        return {}
    rows = list(dict.fromkeys(zip(*(own[name] for name in lists), strict=False)))
    rows = rows if len(rows) > 1 else rows * 2
    values: dict[str, Any] = {name: list(column) for name, column in zip(lists, zip(*rows, strict=True), strict=True)}
    return values | {name: len(rows) for name in ('num_hidden_layers', 'num_layers') if name in names}
