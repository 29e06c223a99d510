"""GLM-4-9B-0414: 9.4 B parameters, trained on up to 32,768 tokens."""
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'THUDM/GLM-4-9B-0414'

llm = dict(
    type=AutoModelForCausalLM.from_pretrained,
    attn_implementation='sdpa',
    trust_remote_code=False,
)

tokenizer = dict(
    type=AutoTokenizer.from_pretrained,
    trust_remote_code=False,
)

chat_template = 'glm4'
