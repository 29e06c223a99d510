"""Mixtral-8x22B-Instruct: 140.6 B parameters, trained on up to 65,536 tokens.

Mixture of experts: LoRA adapts attention, not the experts.
"""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'mistralai/Mixtral-8x22B-Instruct-v0.1'

llm = dict(
    type=AutoModelForCausalLM.from_pretrained,
    attn_implementation='sdpa',
    trust_remote_code=False,
)

tokenizer = dict(
    type=AutoTokenizer.from_pretrained,
    trust_remote_code=False,
)

chat_template = 'mistral_v3'
