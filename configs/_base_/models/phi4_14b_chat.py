"""Phi-4: 14.7 B parameters, trained on up to 16,384 tokens."""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'microsoft/phi-4'

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
