"""Mistral-Nemo-Base: 12.2 B parameters, trained on up to 128,000 tokens."""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'mistralai/Mistral-Nemo-Base-2407'

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
