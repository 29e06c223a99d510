"""What classes need beside small sizes to be built by `small_models`, and which are left out."""

from typing import Any

# Of an image encoder.
VISION: dict[str, int] = {
    **dict(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2),
    **dict(image_size=32, patch_size=8),
}
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
