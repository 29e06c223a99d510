"""Llama-2-7B, QLoRA, MOSS, 2 epochs, 8 devices."""
from mmengine.config import read_base

with read_base():
    from .._base_.datasets.moss_sft_all import chat_samples, max_length, pack, train_dataset
    from .._base_.methods.qlora import lora, optimizer, quantization
    from .._base_.models.llama2_7b import base_model, chat_template, llm, tokenizer
    from .._base_.runtime import *
    from .._base_.strategies.one_device import strategy

schedule.update(max_epochs=2, batch_size=8, gradient_accumulation_steps=1)
data.num_workers = 2
chat_template = 'moss_sft'
train_dataset[0].map_args.bot_name = 'Llama2'
train_dataset[1].map_args.bot_name = 'Llama2'
