"""Config of Baichuan 13B: a Llama with ALiBi instead of a rotary embedding.

It has a separate model type. Saved as `smollm3`, whose layers it uses, it would load everywhere without the ALiBi bias
and silently generate nonsense.
"""

from importlib import import_module
from typing import Any

# Not SmolLM3Config: this module is imported during the import of transformers, when only the base class is available.
from transformers.configuration_utils import PreTrainedConfig

MODEL_TYPE = 'xtune_baichuan_alibi'


class BaichuanAlibiConfig(PreTrainedConfig):
    """The settings that SmolLM3's layers read, without rotary embeddings and with an untied lm_head."""

    model_type = MODEL_TYPE
    keys_to_ignore_at_inference = ['past_key_values']
    default_theta = 10000.0

    vocab_size: int = 64000
    hidden_size: int = 5120
    intermediate_size: int = 13696
    num_hidden_layers: int = 40
    num_attention_heads: int = 40
    num_key_value_heads: int | None = None
    hidden_act: str = 'silu'
    max_position_embeddings: int = 4096
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    use_cache: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    rope_parameters: dict | None = None
    no_rope_layers: list[int] | None = None
    layer_types: list[str] | None = None
    use_sliding_window: bool = False
    sliding_window: int | None = None
    attention_bias: bool = False
    attention_dropout: float | int = 0.0
    mlp_bias: bool = False
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        self.num_key_value_heads = self.num_key_value_heads or self.num_attention_heads
        self.no_rope_layers = [0] * self.num_hidden_layers
        self.layer_types = ['full_attention'] * self.num_hidden_layers
        super().__post_init__(**kwargs)
        # Registers the model class, only when a config is built: it imports torch. alibi.py imports this module, hence
        # not an import statement.
        import_module('.alibi', __package__)
