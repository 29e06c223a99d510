"""DeepSeek-LLM-67B-Chat: 67.4 B parameters, trained on up to 4,096 tokens."""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'deepseek-ai/deepseek-llm-67b-chat'

llm = dict(
    type=AutoModelForCausalLM.from_pretrained,
    attn_implementation='sdpa',
    trust_remote_code=False,
)

tokenizer = dict(
    type=AutoTokenizer.from_pretrained,
    trust_remote_code=False,
)

chat_template = 'deepseek_v2'
