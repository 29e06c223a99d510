"""LLaMA-65B: 65.3 B parameters, trained on up to 2,048 tokens."""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'huggyllama/llama-65b'

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
