"""MiniCPM3-4B: 4.1 B parameters, trained on up to 32,768 tokens."""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'openbmb/MiniCPM3-4B'

llm = dict(
    type=AutoModelForCausalLM.from_pretrained,
    attn_implementation='sdpa',
    trust_remote_code=False,
)

tokenizer = dict(
    type=AutoTokenizer.from_pretrained,
    trust_remote_code=False,
)

chat_template = 'chatml'
