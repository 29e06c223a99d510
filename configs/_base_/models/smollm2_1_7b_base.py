"""SmolLM2-1.7B: 1.7 B parameters, trained on up to 8,192 tokens."""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'HuggingFaceTB/SmolLM2-1.7B'

llm = dict(
    type=AutoModelForCausalLM.from_pretrained,
    attn_implementation='sdpa',
    trust_remote_code=False,
)

tokenizer = dict(
    type=AutoTokenizer.from_pretrained,
    trust_remote_code=False,
)

chat_template = 'default'
