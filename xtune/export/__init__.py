"""Conversions: checkpoint to Hugging Face folder, merge, split."""
