"""Qwen-14B-Chat: 14.2 B parameters, trained on up to 2,048 tokens."""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'Qwen/Qwen-14B-Chat'

llm = dict(
    type=AutoModelForCausalLM.from_pretrained,
    attn_implementation='sdpa',
    trust_remote_code=False,
)

tokenizer = dict(
    type=AutoTokenizer.from_pretrained,
    trust_remote_code=False,
    eos_token='<|im_end|>',
)

chat_template = 'qwen_chat'
