"""Qwen1.5-1.8B-Chat: 1.8 B parameters, trained on up to 32,768 tokens."""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'Qwen/Qwen1.5-1.8B-Chat'

llm = dict(
    type=AutoModelForCausalLM.from_pretrained,
    attn_implementation='sdpa',
    trust_remote_code=False,
)

tokenizer = dict(
    type=AutoTokenizer.from_pretrained,
    trust_remote_code=False,
)

chat_template = 'qwen_chat'
