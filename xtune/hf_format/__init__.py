"""The Hugging Face folder format: weights, config, tokenizer and probe logits of adapters and models."""
