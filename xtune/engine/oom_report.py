"""Errors for out-of-memory steps: what takes the memory, and what to change."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..data.batches import MicroBatch
from ..errors import OutOfMemory
from ..utils.out_of_memory import ADVICE, short_message

GIB = 2**30


def oom_error(
    llm: torch.nn.Module, trained: Iterable[torch.nn.Parameter], states: Any, batch: MicroBatch, logits: bool
) -> OutOfMemory:
    """Return the error of a step that does not fit even with every layer checkpointed.

    Args:
        llm: The model.
        trained: What the optimizer changes.
        states: The optimizer's state.
        batch: The largest micro-batch of the step.
        logits: Whether [tokens, vocabulary] is there as a whole.
    """
    own, trained = list(llm.parameters()), list(trained)
    known = {id(p) for p in own}
    weights, master_weights = _bytes(own), _bytes(p for p in trained if id(p) not in known)
    parts = {
        'weights': weights,
        'float32 master weights': master_weights,
        'gradients': sum(p.numel() * 4 for p in trained),
        'optimizer state': _bytes(t for state in states.values() for t in state.values() if torch.is_tensor(t))
        or 8 * sum(p.numel() for p in trained),
    }
    rows, width = batch.input_ids.shape
    if logits:
        # At most: of positions with a target alone; the type they are computed in, float32, and their gradient.
        parts['logits'] = rows * width * _vocabulary(llm) * 10
    said = ', '.join(f'{name} {size / GIB:.2f}' for name, size in parts.items() if size)
    device = own[0].device
    left = ''
    if device.type == 'cuda':
        total = torch.cuda.get_device_properties(device).total_memory
        said += f'; the GPU has {total / GIB:.1f}'
        held = sum(size for name, size in parts.items() if name != 'logits')
        left = f', which leaves {max(total - held, 0) / GIB:.1f} GiB for activations'
    return OutOfMemory(
        f'out of memory in a step of {rows} x {width} tokens, with every layer checkpointed. In GiB: '
        f'{said}{left}. {ADVICE}'
    )


@contextmanager
def explain_oom(doing: str) -> Iterator[None]:
    """Let torch's error about memory be one that says what to change; `doing` is what it happened at.

    Raises:
        OutOfMemory: Memory ran out.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(f'out of memory while {doing}: {short_message(error)} {ADVICE}') from error


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _vocabulary(llm: torch.nn.Module) -> int:
    return llm.config.get_text_config().vocab_size
