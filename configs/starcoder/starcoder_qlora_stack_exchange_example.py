"""StarCoder, QLoRA, Stack Exchange, 1 epoch.

An example on 20,000 rows.
"""
from mmengine.config import read_base

with read_base():
    from .._base_.datasets.stack_exchange import chat_samples, max_length, pack, train_dataset
    from .._base_.methods.qlora import lora, optimizer, quantization
    from .._base_.models.starcoder import base_model, chat_template, llm, tokenizer
    from .._base_.runtime import *
    from .._base_.strategies.one_device import strategy

schedule.max_epochs = 1
lora.update(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=['c_proj', 'c_attn', 'q_attn'])
optimizer.update(lr=1e-4, weight_decay=0.05)
