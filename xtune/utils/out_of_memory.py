"""Texts for errors about GPU memory."""

import torch

ADVICE = (
    'Lower schedule.batch_size (and raise schedule.accumulate, for the same steps), then max_length; '
    "checkpointing='offload' keeps less, a qlora preset has a base of 4 bits, and several GPUs share the model with "
    '--strategy fsdp2.'
)


def short_message(error: torch.OutOfMemoryError) -> str:
    """Return the sizes in torch's message on one line, without its advice."""
    return ' '.join(str(error).split()).split(' If reserved but')[0]
