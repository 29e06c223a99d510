"""gpt-oss-120b: 116.8 B parameters, trained on up to 131,072 tokens.

Mixture of experts: LoRA adapts attention, not the experts.
Attention has sinks, which sdpa lacks.
The files are in MXFP4, which transformers cannot train with; without the package `kernels` it unpacks them.
For data with thoughts take `gpt_oss_thinking`.
"""
from transformers import AutoModelForCausalLM, AutoTokenizer

# Hub name or local folder. The tokenizer is read from the same place.
base_model = 'openai/gpt-oss-120b'

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
