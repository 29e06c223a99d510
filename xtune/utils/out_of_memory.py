"""Texts for errors about GPU memory."""

import torch

ADVICE = (
    'Lower schedule.batch_size (and raise schedule.gradient_accumulation_steps, for the same steps), then max_length; '
    "activation_checkpointing='offload' saves more, a qlora preset has a 4-bit base, and several GPUs share the model "
    'with --strategy fsdp2.'
)


def short_message(error: torch.OutOfMemoryError) -> str:
    """Return the sizes in torch's message on one line, without its advice."""
    return ' '.join(str(error).split()).split(' If reserved but')[0]
