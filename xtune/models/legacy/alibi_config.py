"""Config of Baichuan 13B: a Llama without rotary embedding whose attention is biased by distance (ALiBi).

It has a model type of its own. Saved as `smollm3`, whose layers it uses, it would load anywhere without the bias, and
answer nonsense in silence.
"""

from typing import Any

from transformers import SmolLM3Config

MODEL_TYPE = 'xtune_baichuan_alibi'


class BaichuanAlibiConfig(SmolLM3Config):
    """SmolLM3's config with rotary embedding off in every layer, and a head apart from the embedding."""

    model_type = MODEL_TYPE
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        self.no_rope_layers = [0] * self.num_hidden_layers
        self.use_sliding_window = False
        super().__post_init__(**kwargs)
        from . import alibi  # noqa: F401  registers the model class; only who builds a config pays for it
