"""SmolLM3-3B: 3.1 B parameters, trained on up to 65,536 tokens.

The model's own template writes today's date into every chat; `chatml` does not.
"""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'HuggingFaceTB/SmolLM3-3B'

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
