"""DeepSeek-Coder-33B-Instruct: 33.3 B parameters, trained on up to 16,384 tokens."""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'deepseek-ai/deepseek-coder-33b-instruct'

llm = dict(
    type=AutoModelForCausalLM.from_pretrained,
    attn_implementation='sdpa',
    trust_remote_code=False,
)

tokenizer = dict(
    type=AutoTokenizer.from_pretrained,
    trust_remote_code=False,
)

chat_template = 'deepseek_coder'
