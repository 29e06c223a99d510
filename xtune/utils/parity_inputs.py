"""Rows for trials that compare two ways of computing a model."""

import torch
from transformers import PreTrainedConfig


def trial_width(config: PreTrainedConfig, wanted: int, parts: int) -> int:
    """Return how many tokens, at most `wanted`, each part of a row has, so that the model knows all its positions."""
    limit = getattr(config, 'max_position_embeddings', None)
    return min(wanted, limit // parts) if limit and limit >= parts else wanted


def trial_ids(width: int, vocabulary: int, device: torch.device) -> torch.Tensor:
    """Return token ids [1, width] from all over a vocabulary.

    Its first ids are special tokens and bytes, on which models were hardly trained. SmolLM2 computes rows of them so
    badly in bf16 that its logits differ by 0.6 of their norm between two attentions that are both right; of tokens from
    all over, by 0.01.
    """
    step = max(vocabulary // (width + 2), 1)
    return (torch.arange(1, 1 + width, device=device)[None] * step) % vocabulary
