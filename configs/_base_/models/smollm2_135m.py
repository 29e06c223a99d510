"""SmolLM2-135M-Instruct: 0.13 B parameters, trained on up to 8,192 tokens.

The model's own template adds a system message that names SmolLM to every chat; `chatml` does not.
"""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'HuggingFaceTB/SmolLM2-135M-Instruct'

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
