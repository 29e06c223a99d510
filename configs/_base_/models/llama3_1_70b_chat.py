"""Llama-3.1-70B-Instruct: 70.6 B parameters, trained on up to 131,072 tokens."""
from transformers import AutoModelForCausalLM, AutoTokenizer

# Hub name or local folder. The tokenizer is read from the same place.
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

# 'auto' is the model's own chat template.
chat_template = 'auto'
