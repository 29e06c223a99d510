"""Qwen2.5-1.5B: 1.5 B parameters, trained on up to 131,072 tokens."""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'Qwen/Qwen2.5-1.5B'

llm = dict(
    type=AutoModelForCausalLM.from_pretrained,
    attn_implementation='sdpa',
    trust_remote_code=False,
)

tokenizer = dict(
    type=AutoTokenizer.from_pretrained,
    trust_remote_code=False,
)

chat_template = 'default'
