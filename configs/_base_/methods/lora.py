"""LoRA: adapters on every linear layer of a base in its own precision (arXiv 2106.09685)."""
from peft import LoraConfig
from torch.optim import AdamW

quantization = None

lora = dict(
    type=LoraConfig,
    r=64,
    lora_alpha=16,  # the update is scaled by lora_alpha / r
    lora_dropout=0.1,
    target_modules='all-linear',
    task_type='CAUSAL_LM',
)

optimizer = dict(
    type=AdamW,
    lr=2e-4,
    betas=(0.9, 0.999),
    weight_decay=0.0,
)
