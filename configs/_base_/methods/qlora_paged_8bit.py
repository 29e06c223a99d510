"""QLoRA, paged 8-bit AdamW: 2 bytes of optimizer state per trained value, paged to CPU memory if the GPU is full.

The optimizer is from bitsandbytes and works on CUDA GPUs only.
"""
from bitsandbytes.optim import PagedAdamW8bit
from peft import LoraConfig
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
    type=PagedAdamW8bit,
    lr=2e-4,
    betas=(0.9, 0.999),
    weight_decay=0.0,
)
