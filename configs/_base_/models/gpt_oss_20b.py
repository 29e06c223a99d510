"""gpt-oss-20b: 20.9 B parameters, trained on up to 131,072 tokens.

Mixture of experts: LoRA adapts what lies outside the experts.
Its own template cannot be proven and no named one writes its format: set template to a .jinja file.
Attention has sinks, which sdpa lacks.
"""
from transformers import AutoModelForCausalLM, AutoTokenizer

# Hub name or local folder. The tokenizer is read from the same place.
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

# 'auto' is the model's own chat template.
template = 'auto'
