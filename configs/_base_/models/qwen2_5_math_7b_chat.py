"""Qwen2.5-Math-7B-Instruct: 7.6 B parameters, trained on up to 4,096 tokens."""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'Qwen/Qwen2.5-Math-7B-Instruct'

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
