"""Llama-2-13B-Chat: 13.0 B parameters, trained on up to 4,096 tokens."""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'meta-llama/Llama-2-13b-chat-hf'

llm = dict(
    type=AutoModelForCausalLM.from_pretrained,
    attn_implementation='sdpa',
    trust_remote_code=False,
)

tokenizer = dict(
    type=AutoTokenizer.from_pretrained,
    trust_remote_code=False,
)

chat_template = 'llama2_chat'
