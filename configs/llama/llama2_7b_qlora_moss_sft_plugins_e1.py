"""Llama-2-7B, QLoRA, MOSS with plugins, 1 epoch."""
from mmengine.config import read_base

with read_base():
    from .._base_.datasets.moss_sft_plugins import chat_samples, max_length, pack, train_dataset
    from .._base_.methods.qlora import lora, optimizer, quantization
    from .._base_.models.llama2_7b import base_model, chat_template, llm, tokenizer
    from .._base_.runtime import *
    from .._base_.strategies.one_device import strategy

schedule.max_epochs = 1
chat_template = 'moss_sft'
train_dataset.map_args.bot_name = 'Llama2'
