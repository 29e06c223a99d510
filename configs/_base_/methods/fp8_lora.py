"""FP8 LoRA: a frozen base in float8, LoRA on every linear layer.

Memory as LoRA, faster on GPUs with float8: NVIDIA Ada (compute capability 8.9), Hopper and later.
"""
from peft import LoraConfig
from torch.optim import AdamW

from xtune.ops.float8_linear import Float8Config

quantization = dict(
    type=Float8Config,
    skip=['router', 'gate'],  # layers with one of these in their name stay in bf16
    last=1,  # number of decoder layers at the end that stay in bf16
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
