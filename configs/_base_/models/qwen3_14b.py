"""Qwen3-14B: 14.8 B parameters, trained on up to 32,768 tokens.

For data with reasoning use `qwen3_thinking`.
"""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'Qwen/Qwen3-14B'

llm = dict(
    type=AutoModelForCausalLM.from_pretrained,
    attn_implementation='sdpa',
    trust_remote_code=False,
)

tokenizer = dict(
    type=AutoTokenizer.from_pretrained,
    trust_remote_code=False,
)

chat_template = 'qwen3'
