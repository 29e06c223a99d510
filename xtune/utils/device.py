"""Which device, which number format, and what is installed for it."""

import gc
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ..errors import ModelError


def best_device(local_rank: int = 0) -> torch.device:
    """Return the GPU with that number, which becomes the current one, else the CPU.

    Raises:
        ModelError: There are GPUs, but fewer than processes on this host.
    """
    if not torch.cuda.is_available():
        return torch.device('cpu')
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise ModelError(f'process {local_rank} of this host has no GPU of its own: there are {count}')
    device = torch.device('cuda', local_rank)
    torch.cuda.set_device(device)
    return device


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the compute type that `precision` ('auto', 'bf16', 'fp32') means on `device`.

    Raises:
        ModelError: bf16 is asked of a GPU that has none.
    """
    has_bf16 = device.type == 'cpu' or torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == 'bf16' and not has_bf16:
        name = torch.cuda.get_device_name(device)
        raise ModelError(f"precision='bf16', but {name} does not compute in bf16; use precision='fp32'")
    if precision == 'auto':
        precision = 'bf16' if device.type == 'cuda' and has_bf16 else 'fp32'
    return {'bf16': torch.bfloat16, 'fp32': torch.float32}[precision]


def require_bitsandbytes(purpose: str) -> None:
    """Refuse a quantised base where bitsandbytes is missing.

    Raises:
        ModelError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec('bitsandbytes') is None:
        raise ModelError(f'{purpose} needs bitsandbytes, which is not installed: pip install bitsandbytes')


def peak_memory(device: torch.device) -> float:
    """Return the peak memory of this process in GiB: allocated on a GPU, resident on a CPU."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def random_numbers(device: torch.device) -> Callable[[], None]:
    """Return a function that puts torch's generators of the CPU and of `device` where they are now."""
    host = torch.get_rng_state()
    own = torch.cuda.get_rng_state(device) if device.type == 'cuda' else None

    def back() -> None:
        torch.set_rng_state(host)
        if own is not None:
            torch.cuda.set_rng_state(own, device)

    return back


@contextmanager
def memory_freed_after(device: torch.device) -> Iterator[None]:
    """Return a context at whose end the memory of a GPU is free that only reference cycles hold.

    A model, its optimizer and the CUDA graphs of its layers refer to each other. Python would free them at some later
    time, and until then a second run in the same process has that much less of the GPU. Elsewhere nothing is done: a
    collection takes a quarter of a second.
    """
    try:
        yield
    finally:
        if device.type == 'cuda':
            gc.collect()
            torch.cuda.empty_cache()
