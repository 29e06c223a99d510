"""DeepSeek-V2-Lite-Chat: 15.7 B parameters, trained on up to 32,768 tokens.

Mixture of experts: LoRA adapts attention, not the experts.
"""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'deepseek-ai/DeepSeek-V2-Lite-Chat'

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
