"""Qwen3-32B: 32.8 B parameters, trained on up to 32,768 tokens.

Its own template opens a reply with an empty thought that the prompt lacks; `chatml` is its form without thinking.
"""
from transformers import AutoModelForCausalLM, AutoTokenizer

# Hub name or local folder. The tokenizer is read from the same place.
base_model = 'Qwen/Qwen3-32B'

llm = dict(
    type=AutoModelForCausalLM.from_pretrained,
    attn_implementation='sdpa',
    trust_remote_code=False,
)

tokenizer = dict(
    type=AutoTokenizer.from_pretrained,
    trust_remote_code=False,
)

template = 'chatml'
