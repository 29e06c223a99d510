"""Baichuan-13B-Base: 13.3 B parameters, trained on up to 4,096 tokens."""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'baichuan-inc/Baichuan-13B-Base'

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
