"""Llama-3.1-70B-Instruct: 70.6 B parameters, trained on up to 131,072 tokens."""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'meta-llama/Llama-3.1-70B-Instruct'

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
