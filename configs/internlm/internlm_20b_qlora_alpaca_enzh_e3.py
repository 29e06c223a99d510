"""InternLM-20B, QLoRA, Alpaca in English and Chinese, 3 epochs."""
from mmengine.config import read_base

with read_base():
    from .._base_.datasets.alpaca_enzh import chat_samples, max_length, pack, train_dataset
    from .._base_.methods.qlora import lora, optimizer, quantization
    from .._base_.models.internlm_20b import base_model, chat_template, llm, tokenizer
    from .._base_.runtime import *
    from .._base_.strategies.one_device import strategy

schedule.max_epochs = 3
