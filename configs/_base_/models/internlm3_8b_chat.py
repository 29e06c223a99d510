"""InternLM3-8B-Instruct: 8.8 B parameters, trained on up to 32,768 tokens."""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'internlm/internlm3-8b-instruct'

llm = dict(
    type=AutoModelForCausalLM.from_pretrained,
    attn_implementation='sdpa',
    trust_remote_code=False,
)

tokenizer = dict(
    type=AutoTokenizer.from_pretrained,
    trust_remote_code=False,
)

chat_template = 'internlm2_chat'
