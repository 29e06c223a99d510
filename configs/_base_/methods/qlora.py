"""QLoRA: 4-bit frozen base weights, LoRA on every linear layer (arXiv 2305.14314).

AdamW as in XTuner v0.1.23: the paged 32-bit AdamW of v0.1.9 needs a GPU and saves little memory on adapters.
"""
from peft import LoraConfig
from torch.optim import AdamW
from transformers import BitsAndBytesConfig

quantization = dict(
    type=BitsAndBytesConfig,
    load_in_4bit=True,
    bnb_4bit_quant_type='nf4',
    bnb_4bit_use_double_quant=True,
)

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
