"""SmolLM2-135M-Instruct."""
from transformers import AutoModelForCausalLM, AutoTokenizer

# Hub name or local folder. The tokenizer is read from the same place.
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

# The model's own template puts a system message that names SmolLM before every chat; chatml does not.
template = 'chatml'
