"""Mistral-Small-24B-Instruct: 23.6 B parameters, trained on up to 32,768 tokens."""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'mistralai/Mistral-Small-24B-Instruct-2501'

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
