"""Llama-2-7B, full fine-tuning, WizardLM Evol-Instruct V2, 1 epoch."""
from mmengine.config import read_base

with read_base():
    from .._base_.datasets.wizardlm import chat_samples, max_length, pack, train_dataset
    from .._base_.methods.full import lora, optimizer, quantization
    from .._base_.models.llama2_7b import base_model, chat_template, llm, tokenizer
    from .._base_.runtime import *
    from .._base_.strategies.one_device import strategy

schedule.update(max_epochs=1, batch_size=2)
