"""Gemma-2-27B-it: 27.2 B parameters, trained on up to 8,192 tokens.

Attention caps its logits, which sdpa leaves out.
"""
from transformers import AutoModelForCausalLM, AutoTokenizer

# Hub name or local folder. The tokenizer is read from the same place.
base_model = 'google/gemma-2-27b-it'

llm = dict(
    type=AutoModelForCausalLM.from_pretrained,
    attn_implementation='eager',
    trust_remote_code=False,
)

tokenizer = dict(
    type=AutoTokenizer.from_pretrained,
    trust_remote_code=False,
)

chat_template = 'gemma'
