"""Small random models with the structure of a config, on which properties of the full model are measured.

Sizes are replaced, selected by the names of config fields. Every layer type occurs once. All other settings (position
embeddings, switches, layer periods) are kept.
"""

import copy
from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig, PreTrainedModel

from ..compat.transformers_private import from_config
from ..utils.quiet import quiet

# Small size -> names of the config fields that are set to it.
_FIELDS = {
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
SIZES: dict[str, int] = {name: size for size, names in _FIELDS.items() for name in names.split()}
VOCABULARY_FIELDS = ('vocab_size', 'vocab_size_per_layer_input', 'unpadded_vocab_size', 'decoder_vocab_size')
# Config fields with a list of one entry per layer.
PER_LAYER_FIELDS = ('layer_types', 'mlp_layer_types', 'layers_block_type', 'indexer_types')
# Vocabulary size of a copy.
VOCABULARY = 96
# Standard deviation of the matrices of a copy. With the usual 0.02, layers hardly change their inputs.
INIT_STD = 0.3


def small_copy(config: PreTrainedConfig, device: torch.device, attention: str | None = None) -> PreTrainedModel | None:
    """Return a small random float32 model with the structure of `config`; None if it cannot be built.

    Args:
        config: Config of the full model.
        device: Device of the copy.
        attention: Its attention implementation; None is the default of its class.
    """
    arguments = {} if attention is None else {'attn_implementation': attention}
    config = config.get_text_config()
    cls = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if cls is None:
        return None
    # Numbers of a config may be incompatible with small sizes; then retry with the defaults of its class.
    for keep_numbers in (True, False):
        try:
            with quiet(), torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                small = small_config(config, keep_numbers=keep_numbers)
                model = from_config(cls, small, dtype=torch.float32, **arguments)
                return randomize_weights(model).to(device)
        except Exception:
            continue  # configs and models of any author raise any type of error
    return None


def small_config(
    config: PreTrainedConfig, vocabulary: int = VOCABULARY, keep_numbers: bool = True, **changes: Any
) -> PreTrainedConfig:
    """Return a small config of the class and the structure of `config`.

    Args:
        config: The config.
        vocabulary: Vocabulary size.
        keep_numbers: Keep numbers of `config` that are not sizes; otherwise use the defaults of its class.
        changes: Values that override those chosen here; a dict for a nested config.
    """
    default, cls = type(config)(), type(config)
    # Not getattr: some configs raise for a value that differs between layers.
    original = {name: value for name, value in vars(config).items() if not name.startswith('_')}
    kept_types = (bool, str, int, float) if keep_numbers else (bool, str)
    values = {name: value for name, value in original.items() if _is_kept(name, value, default, kept_types)}
    names = set(original) | set(cls.attribute_map)
    values |= {name: _small_size(size, original.get(name)) for name, size in SIZES.items() if name in names}
    values |= {name: vocabulary for name in VOCABULARY_FIELDS if name in names}
    heads = original.get('num_attention_heads')
    is_mha = 'kv_lora_rank' in names or (heads is not None and heads == original.get('num_key_value_heads'))
    if is_mha and 'num_key_value_heads' in values:  # every query head has its own key and value head
        values['num_key_value_heads'] = values['num_attention_heads']
    if original.get('is_decoder') is False:
        values['is_decoder'] = True
    tokens = [name for name in original if name.endswith(('_token_id', '_token_index'))]
    values |= {name: None if original[name] is None else _small_token_id(original[name]) for name in tokens}
    values |= _distinct_layers(original, names)
    for name, nested in cls.sub_configs.items():
        if name in ('text_config', 'decoder'):
            nested_config = original.get(name) or nested()
            values[name] = small_config(nested_config, vocabulary, keep_numbers, **changes.get(name, {})).to_dict()
    values |= {name: value for name, value in changes.items() if name not in cls.sub_configs or name not in values}
    return cls(**copy.deepcopy(values))


def randomize_weights(model: PreTrainedModel, std: float = INIT_STD) -> PreTrainedModel:
    """Fill the matrices of `model` with normal values of the standard deviation `std`; return it in evaluation mode."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and not name.endswith('A_log'):
                parameter.normal_(std=std)
    return model.eval()


def _small_size(size: int, original: Any) -> int:
    """Return a size; sizes up to 4 are counts, of experts or heads, which may be even smaller in the config."""
    return min(size, original) if type(original) is int and size <= 4 else size


def _small_token_id(original: Any) -> int:
    return min(original, 2) if type(original) is int else 2


def _is_kept(name: str, value: Any, default: PreTrainedConfig, kept_types: tuple[type, ...]) -> bool:
    """Return whether a copy keeps a config's value."""
    skipped = name in ('dtype', 'transformers_version', 'model_type', '_name_or_path', 'use_cache')
    return type(value) in kept_types and not skipped and value != vars(default).get(name)


def _distinct_layers(original: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Return the number of layers and the per-layer lists, with every combination of their entries once."""
    if original.get('attention_types'):  # GPT-Neo: a list of layer types and its number of repetitions
        layer_types = original['attention_types'][0][0]
        return {'attention_types': [[layer_types, 1]], 'num_layers': len(layer_types)}
    lists = [name for name in PER_LAYER_FIELDS if original.get(name)]
    if not lists:
        return {}
    layers = list(dict.fromkeys(zip(*(original[name] for name in lists), strict=False)))
    layers = layers if len(layers) > 1 else layers * 2
    columns = zip(*layers, strict=True)
    values: dict[str, Any] = {name: list(column) for name, column in zip(lists, columns, strict=True)}
    return values | {name: len(layers) for name in ('num_hidden_layers', 'num_layers') if name in names}
