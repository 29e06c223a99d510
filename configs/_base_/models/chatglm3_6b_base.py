"""ChatGLM3-6B-Base: 6.2 B parameters, trained on up to 8,192 tokens."""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'THUDM/chatglm3-6b-base'

llm = dict(
    type=AutoModelForCausalLM.from_pretrained,
    attn_implementation='sdpa',
    trust_remote_code=False,
)

tokenizer = dict(
    type=AutoTokenizer.from_pretrained,
    trust_remote_code=False,
)

chat_template = 'chatglm3'
