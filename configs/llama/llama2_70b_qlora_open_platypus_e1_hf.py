"""Llama-2-70B, QLoRA, Open-Platypus, 1 epoch.

Alias of llama2_70b_qlora_open_platypus_e1: one engine runs both.
"""
from mmengine.config import read_base

with read_base():
    from .._base_.datasets.open_platypus import chat_samples, max_length, pack, train_dataset
    from .._base_.methods.qlora import lora, optimizer, quantization
    from .._base_.models.llama2_70b import base_model, chat_template, llm, tokenizer
    from .._base_.runtime import *
    from .._base_.strategies.one_device import strategy

schedule.max_epochs = 1
optimizer.lr = 3e-4
lora.target_modules = ['gate_proj', 'down_proj', 'up_proj']
