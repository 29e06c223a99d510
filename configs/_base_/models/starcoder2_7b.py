"""StarCoder2-7B: 7.2 B parameters, trained on up to 16,384 tokens."""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'bigcode/starcoder2-7b'

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
