"""Token ids for parity checks, which compare two ways to compute a model."""

import torch
from transformers import PreTrainedConfig


def tokens_per_sample(config: PreTrainedConfig, wanted: int, samples: int) -> int:
    """Return the tokens of each of `samples` samples, at most `wanted`, for a sequence within the model's context
    length."""
    limit = getattr(config, 'max_position_embeddings', None)
    return min(wanted, limit // samples) if limit and limit >= samples else wanted


def parity_token_ids(seq_len: int, vocab_size: int, device: torch.device) -> torch.Tensor:
    """Return token ids [1, S] from all over a vocabulary.

    Its first ids are special tokens and bytes, on which models were hardly trained. SmolLM2 computes sequences of them
    so badly in bf16 that its logits differ by 0.6 of their norm between two correct attentions; for tokens from all
    over, by 0.01.
    """
    step = max(vocab_size // (seq_len + 2), 1)
    return (torch.arange(1, 1 + seq_len, device=device)[None] * step) % vocab_size
