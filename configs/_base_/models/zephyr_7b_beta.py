"""Zephyr-7B-beta: 7.2 B parameters, trained on up to 8,192 tokens."""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'HuggingFaceH4/zephyr-7b-beta'

llm = dict(
    type=AutoModelForCausalLM.from_pretrained,
    attn_implementation='sdpa',
    trust_remote_code=False,
)

tokenizer = dict(
    type=AutoTokenizer.from_pretrained,
    trust_remote_code=False,
)

chat_template = 'zephyr'
