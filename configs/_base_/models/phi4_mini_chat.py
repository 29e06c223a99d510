"""Phi-4-mini-instruct: 3.8 B parameters, trained on up to 131,072 tokens."""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'microsoft/Phi-4-mini-instruct'

llm = dict(
    type=AutoModelForCausalLM.from_pretrained,
    attn_implementation='sdpa',
    trust_remote_code=False,
)

tokenizer = dict(
    type=AutoTokenizer.from_pretrained,
    trust_remote_code=False,
)

chat_template = 'auto'
