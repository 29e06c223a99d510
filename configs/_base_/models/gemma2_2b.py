"""Gemma-2-2B: 2.6 B parameters, trained on up to 8,192 tokens.

Attention uses logit soft-capping, which sdpa does not support.
"""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'google/gemma-2-2b'

llm = dict(
    type=AutoModelForCausalLM.from_pretrained,
    attn_implementation='eager',
    trust_remote_code=False,
)

tokenizer = dict(
    type=AutoTokenizer.from_pretrained,
    trust_remote_code=False,
)

chat_template = 'default'
