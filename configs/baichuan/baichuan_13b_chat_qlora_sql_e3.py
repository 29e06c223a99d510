"""Baichuan-13B-Chat, QLoRA, SQL, 3 epochs."""
from mmengine.config import read_base

with read_base():
    from .._base_.datasets.sql import chat_samples, max_length, pack, train_dataset
    from .._base_.methods.qlora import lora, optimizer, quantization
    from .._base_.models.baichuan_13b_chat import base_model, chat_template, llm, tokenizer
    from .._base_.runtime import *
    from .._base_.strategies.one_device import strategy

schedule.max_epochs = 3
