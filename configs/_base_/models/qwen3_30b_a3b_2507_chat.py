"""Qwen3-30B-A3B-Instruct-2507: 30.5 B parameters, trained on up to 262,144 tokens.

Mixture of experts: LoRA adapts attention, not the experts.
It answers without reasoning.
"""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'Qwen/Qwen3-30B-A3B-Instruct-2507'

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
