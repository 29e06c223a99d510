"""The shapes of the models, and the linear layers with LoRA."""

from common.synthetic_inputs import LLAMA3_8B, TINY

# Arguments of the config class in transformers; the default `model_type` is Llama.
SHAPES = {
    'llama3_8b': LLAMA3_8B | dict(max_position_embeddings=32768),
    'qwen2_5_1_5b': dict(
        model_type='qwen2',
        vocab_size=151936,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
    ),
    'gemma_like': dict(
        model_type='gemma3_text',
        vocab_size=262144,
        hidden_size=1152,
        intermediate_size=6912,
        num_hidden_layers=26,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=256,
        query_pre_attn_scalar=256,
        layer_types=[f'{"full" if number % 6 == 5 else "sliding"}_attention' for number in range(26)],
        sliding_window=512,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
    ),
    'moe': dict(
        model_type='mixtral',
        vocab_size=32000,
        hidden_size=2048,
        intermediate_size=1024,
        num_hidden_layers=16,
        num_attention_heads=16,
        num_key_value_heads=4,
        num_local_experts=16,
        num_experts_per_tok=2,
        max_position_embeddings=32768,
    ),
    'tiny': TINY,
}
ATTENTION = ['q_proj', 'k_proj', 'v_proj', 'o_proj']
EVERY_LINEAR = [*ATTENTION, 'gate_proj', 'up_proj', 'down_proj']


def target_modules(model: str) -> list[str]:
    """Return the linear layers of `model` with LoRA: all, or those of attention in a mixture of experts."""
    return ATTENTION if 'num_local_experts' in SHAPES[model] else EVERY_LINEAR
