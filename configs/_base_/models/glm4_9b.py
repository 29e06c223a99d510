"""GLM-4-9B: 9.4 B parameters, trained on up to 8,192 tokens."""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'THUDM/glm-4-9b-hf'

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
