"""What `small_models` replaces by name, and the classes that need more."""

from typing import Any

# Small value -> names of the config fields that get it.
_NAMES = {
    32: """
        hidden_size n_embd d_model n_embed embedding_size dim word_embed_proj_dim input_embedding_size
        output_embedding_size attention_hidden_size lru_width embedding_dim moe_intermediate_size
        shared_expert_intermediate_size shared_intermediate_size shared_experts_intermediate_size
        expert_ffn_hidden_size moe_shared_expert_intermediate_size
    """,
    2: """
        num_hidden_layers n_layer n_layers num_layers decoder_layers num_blocks encoder_layers
        num_encoder_layers num_decoder_layers num_key_value_heads num_kv_heads swa_num_key_value_heads
        num_global_key_value_heads num_experts_per_tok num_experts_per_token moe_topk moe_k linear_num_key_heads
        linear_num_heads
    """,
    4: """
        num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads
        num_encoder_attention_heads num_decoder_attention_heads attention_heads swa_num_attention_heads
        num_experts n_routed_experts num_local_experts moe_num_experts zero_expert_num linear_num_value_heads
        mamba_n_heads mamba_num_heads n_mamba_heads time_step_rank mamba_dt_rank
    """,
    8: """
        head_dim kv_channels attention_head_size dim_head d_head swa_head_dim global_head_dim qk_rope_head_dim
        qk_nope_head_dim v_head_dim index_head_dim kv_lora_rank q_lora_rank o_lora_rank index_n_heads
        mamba_d_state ssm_state_size state_size linear_key_head_dim linear_value_head_dim rotary_dim
    """,
    64: """
        intermediate_size ffn_dim n_inner decoder_ffn_dim encoder_ffn_dim dff dim_ff d_inner ffn_hidden_size
        dense_intermediate_size intermediate_size_mlp emb_dim feed_forward_size max_position_embeddings
        n_positions n_ctx max_seq_len max_target_positions context_length
    """,
    1: """
        n_group topk_group num_expert_group n_shared_experts num_shared_experts
    """,
    16: """
        qk_head_dim linear_head_dim mamba_d_head mamba_head_dim mamba_headdim mamba_chunk_size chunk_size
        block_size
    """,
}
SIZES: dict[str, int] = {name: value for value, names in _NAMES.items() for name in names.split()}
# Of an image encoder.
VISION: dict[str, int] = {
    **dict(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2),
    **dict(image_size=32, patch_size=8),
}
# Lists with an entry for each layer.
PER_LAYER = ('layer_types', 'mlp_layer_types', 'layers_block_type', 'indexer_types')

# Class -> what it needs besides.
ODD: dict[str, dict[str, Any]] = {
    'BambaForCausalLM': {'attn_layer_indices': [1], 'mamba_n_heads': 4},
    'BigBirdForCausalLM': {'attention_type': 'original_full'},
    'BigBirdPegasusForCausalLM': {'attention_type': 'original_full'},
    'CohereCompassForCausalLM': {
        'layer_types': ['sliding_attention', 'full_attention'],
        'rope_parameters': dict.fromkeys(
            ('sliding_attention', 'full_attention'), {'rope_type': 'default', 'rope_theta': 10000.0}
        ),
    },
    'DbrxForCausalLM': {
        'attn_config': {'kv_n_heads': 2, 'rope_theta': 10000.0, 'clip_qkv': 8.0},
        'ffn_config': {'hidden_size': 32, 'ffn_hidden_size': 64, 'moe_num_experts': 4, 'moe_top_k': 2},
    },
    'Dots3NoteForCausalLM': {
        **dict(swa_q_lora_rank=8, swa_kv_lora_rank=8, swa_head_dim=16, swa_qk_nope_head_dim=8, swa_v_head_dim=8),
        **dict(swa_num_attention_heads=4, swa_num_key_value_heads=4, swa_qk_rope_head_dim=8),
    },
    'FalconH1ForCausalLM': {'mamba_d_ssm': 64},
    'FalconForCausalLM': {'multi_query': True},
    'GPTNeoForCausalLM': {'attention_types': [[['global', 'local'], 1]], 'window_size': 8},
    'Gemma3ForConditionalGeneration': {'vision_config': VISION},
    'Gemma3nForCausalLM': {'num_kv_shared_layers': 0, 'hidden_size_per_layer_input': 8, 'laurel_rank': 4},
    'GitForCausalLM': {'vision_config': VISION},
    'GraniteMoeHybridForCausalLM': {'layer_types': ['linear_attention', 'full_attention'], 'num_hidden_layers': 2},
    'JambaForCausalLM': {'num_hidden_layers': 2, 'attn_layer_period': 2, 'attn_layer_offset': 1},
    'Lfm2ForCausalLM': {'layer_types': ['conv', 'full_attention'], 'num_hidden_layers': 2},
    'Lfm2MoeForCausalLM': {
        'layer_types': ['conv', 'full_attention', 'conv'],
        'num_hidden_layers': 3,
        'num_dense_layers': 1,
    },
    'Mamba2ForCausalLM': {'n_groups': 2, 'num_heads': 4, 'head_dim': 16},
    'NemotronHForCausalLM': {'n_groups': 2},
    'Qwen4ExpForCausalLM': {
        **dict(indexer_n_heads=2, indexer_kv_heads=1, indexer_head_dim=8, indexer_budget=8, indexer_compress_ratio=2),
        **dict(hc_lowrank=8, hc_count=2),
    },
    'RecurrentGemmaForCausalLM': {'num_hidden_layers': 3},
    'ReformerModelWithLMHead': {'is_decoder': True, 'axial_pos_shape': [8, 8], 'axial_pos_embds_dim': [16, 16]},
    'RoCBertForCausalLM': {
        'pronunciation_vocab_size': 20,
        'pronunciation_embed_dim': 8,
        'shape_vocab_size': 20,
        'shape_embed_dim': 8,
    },
    'XmodForCausalLM': {'default_language': 'en_XX'},
    'Zamba2ForCausalLM': {
        'layers_block_type': ['linear_attention', 'hybrid'],
        'attention_hidden_size': 64,
        'attention_head_dim': 16,
        'mamba_headdim': 8,
        'n_mamba_heads': 8,
    },
    'ZambaForCausalLM': {
        'layers_block_type': ['linear_attention', 'hybrid', 'hybrid'],
        'num_hidden_layers': 3,
        'attention_hidden_size': 64,
        'attention_head_dim': 16,
    },
    'ZayaForCausalLM': {'num_experts_per_tok': 1},
}

# Class -> why it is left out.
LEFT_OUT: dict[str, str] = {
    'BltForCausalLM': 'reads bytes in patches, which another model of its own makes',
    'Gemma3nForConditionalGeneration': 'reads images by the package timm; its language model is a Gemma3nForCausalLM',
    'Gemma4AssistantForCausalLM': 'drafts tokens for another model and takes hidden states of it',
    'Gemma4UnifiedAssistantForCausalLM': 'drafts tokens for another model and takes hidden states of it',
    'GotOcr2ForConditionalGeneration': 'reads images; its language model is a Qwen2ForCausalLM',
    'MossTranscribeDiarizeForConditionalGeneration': 'reads sound; its language model is a Qwen3ForCausalLM',
    'MusicgenForCausalLM': 'predicts codes of sound in several streams, not text',
    'MusicgenMelodyForCausalLM': 'predicts codes of sound in several streams, not text',
    'Phi4MultimodalForCausalLM': 'has encoders of images and sound of 0.8 B parameters, whatever its config says',
}
