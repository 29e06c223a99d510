"""SmolLM2-135M-Instruct, FP8 LoRA, Self-cognition, 2 epochs."""
from mmengine.config import read_base

with read_base():
    from .._base_.datasets.selfcog import chat_samples, max_length, pack, train_dataset
    from .._base_.methods.fp8_lora import lora, optimizer, quantization
    from .._base_.models.smollm2_135m import base_model, chat_template, llm, tokenizer
    from .._base_.runtime import *
    from .._base_.strategies.one_device import strategy

schedule.update(max_epochs=2, batch_size=1, gradient_accumulation_steps=1)
optimizer.lr = 2e-3
lora.update(r=16, lora_alpha=32, lora_dropout=0.0)
activation_checkpointing = 'none'
log.every_steps = 5
