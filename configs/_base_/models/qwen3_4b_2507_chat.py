"""Qwen3-4B-Instruct-2507: 4.0 B parameters, trained on up to 262,144 tokens.

It answers without reasoning.
"""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'Qwen/Qwen3-4B-Instruct-2507'

llm = dict(
    type=AutoModelForCausalLM.from_pretrained,
    attn_implementation='sdpa',
    trust_remote_code=False,
)

tokenizer = dict(
    type=AutoTokenizer.from_pretrained,
    trust_remote_code=False,
)

chat_template = 'chatml'
