"""Three data sets in one run: SmolLM2-135M-Instruct, LoRA."""

from peft import LoraConfig
from torch.optim import AdamW
from transformers import AutoModelForCausalLM, AutoTokenizer

base_model = 'HuggingFaceTB/SmolLM2-135M-Instruct'
llm = dict(type=AutoModelForCausalLM.from_pretrained)
tokenizer = dict(type=AutoTokenizer.from_pretrained)
chat_template = 'chatml'
quantization = None
lora = dict(type=LoraConfig, r=16, lora_alpha=32, target_modules='all-linear', task_type='CAUSAL_LM')

train_dataset = [
    dict(path='docs/examples/alpaca.json', weight=2),
    dict(path='docs/examples/messages.jsonl', weight=1, limit=2),
    dict(path='docs/examples/questions.xlsx', map_fn='medqa', system='Answer in one line.', weight=1),
]
val_dataset = dict(path='docs/examples/support', split='validation')

max_length = 512
optimizer = dict(type=AdamW, lr=2e-4)
schedule = dict(max_epochs=3, batch_size=2, gradient_accumulation_steps=1)
strategy = dict(name='one_device')
