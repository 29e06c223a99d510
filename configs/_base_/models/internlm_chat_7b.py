"""InternLM-Chat-7B: 7.3 B parameters, trained on up to 2,048 tokens."""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'internlm/internlm-chat-7b'

llm = dict(
    type=AutoModelForCausalLM.from_pretrained,
    attn_implementation='sdpa',
    trust_remote_code=False,
)

tokenizer = dict(
    type=AutoTokenizer.from_pretrained,
    trust_remote_code=False,
)

chat_template = 'internlm_chat'
