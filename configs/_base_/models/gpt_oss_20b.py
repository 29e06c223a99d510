"""gpt-oss-20b: 20.9 B parameters, trained on up to 131,072 tokens.

Mixture of experts: LoRA adapts attention, not the experts.
Attention has sinks, which sdpa does not support.
The weights are MXFP4, which transformers cannot train with; without the package `kernels` it dequantizes them.
For data with reasoning use `gpt_oss_thinking`.
"""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'openai/gpt-oss-20b'

llm = dict(
    type=AutoModelForCausalLM.from_pretrained,
    attn_implementation='eager',
    trust_remote_code=False,
)

tokenizer = dict(
    type=AutoTokenizer.from_pretrained,
    trust_remote_code=False,
)

chat_template = 'gpt_oss'
