"""Qwen2.5-14B-Instruct, QLoRA, Own conversations, 1 epoch."""
from mmengine.config import read_base

with read_base():
    from .._base_.datasets.custom_sft import chat_samples, max_length, pack, train_dataset
    from .._base_.methods.qlora import lora, optimizer, quantization
    from .._base_.models.qwen2_5_14b_chat import base_model, chat_template, llm, tokenizer
    from .._base_.runtime import *
    from .._base_.strategies.one_device import strategy

schedule.max_epochs = 1
