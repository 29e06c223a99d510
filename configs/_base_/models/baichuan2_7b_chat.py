"""Baichuan2-7B-Chat: 7.5 B parameters, trained on up to 4,096 tokens."""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'baichuan-inc/Baichuan2-7B-Chat'

llm = dict(
    type=AutoModelForCausalLM.from_pretrained,
    attn_implementation='sdpa',
    trust_remote_code=False,
)

tokenizer = dict(
    type=AutoTokenizer.from_pretrained,
    trust_remote_code=False,
)

chat_template = 'baichuan2_chat'
