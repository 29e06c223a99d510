"""LoRA on int8: adapters on every linear layer of a frozen 8-bit base (arXiv 2208.07339)."""
from peft import LoraConfig
from torch.optim import AdamW
from transformers import BitsAndBytesConfig

quantization = dict(
    type=BitsAndBytesConfig,
    load_in_8bit=True,
)

lora = dict(
    type=LoraConfig,
    r=16,
    lora_alpha=16,  # the update is scaled by lora_alpha / r
    lora_dropout=0.05,
    target_modules='all-linear',
    task_type='CAUSAL_LM',
)

optimizer = dict(
    type=AdamW,
    lr=2e-4,
    betas=(0.9, 0.999),
    weight_decay=0.0,
)
