"""Out-of-memory errors: the memory use by category, and options that reduce it."""

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
        trained: The parameters of the optimizer.
        states: The optimizer's state.
        batch: The largest micro-batch of the step.
        logits: Whether the logits [tokens, vocabulary] are materialized.
    """
    parameters, trained = list(llm.parameters()), list(trained)
    ids = {id(p) for p in parameters}
    weights, master_weights = _bytes(parameters), _bytes(p for p in trained if id(p) not in ids)
    sizes = {
        'weights': weights,
        'float32 master weights': master_weights,
        'gradients': sum(p.numel() * 4 for p in trained),
        'optimizer state': _bytes(t for state in states.values() for t in state.values() if torch.is_tensor(t))
        or 8 * sum(p.numel() for p in trained),
    }
    batch_size, seq_len = batch.input_ids.shape
    if logits:
        # Upper bound: 10 bytes for the compute dtype, float32 and the gradient; only labeled positions have them.
        sizes['logits'] = batch_size * seq_len * _vocabulary(llm) * 10
    breakdown = ', '.join(f'{name} {size / GIB:.2f}' for name, size in sizes.items() if size)
    device = parameters[0].device
    remainder = ''
    if device.type == 'cuda':
        total = torch.cuda.get_device_properties(device).total_memory
        breakdown += f'; the GPU has {total / GIB:.1f}'
        resident = sum(size for name, size in sizes.items() if name != 'logits')
        remainder = f', which leaves {max(total - resident, 0) / GIB:.1f} GiB for activations'
    return OutOfMemory(
        f'out of memory in a step of {batch_size} x {seq_len} tokens, with every layer checkpointed. In GiB: '
        f'{breakdown}{remainder}. {ADVICE}'
    )


@contextmanager
def explain_oom(activity: str) -> Iterator[None]:
    """Replace torch's out-of-memory error by one with advice; `activity` is the activity in the block.

    Raises:
        OutOfMemory: An allocation failed.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(f'out of memory while {activity}: {short_message(error)} {ADVICE}') from error


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _vocabulary(llm: torch.nn.Module) -> int:
    return llm.config.get_text_config().vocab_size
