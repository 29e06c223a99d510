"""Select the device and the compute dtype; memory and random state of a device."""

import gc
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ..errors import ModelError


def best_device(local_rank: int = 0) -> torch.device:
    """Return GPU `local_rank` and make it the current device; without a GPU return the CPU.

    Raises:
        ModelError: This host has GPUs, but fewer than ranks.
    """
    if not torch.cuda.is_available():
        return torch.device('cpu')
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise ModelError(f'local rank {local_rank} needs a GPU of its own, but this host has only {count}')
    device = torch.device('cuda', local_rank)
    torch.cuda.set_device(device)
    return device


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the compute dtype for `precision` ('auto', 'bf16', 'fp32') on `device`.

    Raises:
        ModelError: 'bf16' on a GPU that does not support it.
    """
    has_bf16 = device.type == 'cpu' or torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == 'bf16' and not has_bf16:
        name = torch.cuda.get_device_name(device)
        raise ModelError(f"precision='bf16', but {name} does not support bf16; use precision='fp32'")
    if precision == 'auto':
        precision = 'bf16' if device.type == 'cuda' and has_bf16 else 'fp32'
    return {'bf16': torch.bfloat16, 'fp32': torch.float32}[precision]


def require_bitsandbytes(purpose: str) -> None:
    """Check that bitsandbytes, which quantized base models need, is installed.

    Raises:
        ModelError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec('bitsandbytes') is None:
        raise ModelError(f'{purpose} needs bitsandbytes, which is not installed: pip install bitsandbytes')


def peak_memory(device: torch.device) -> float:
    """Return the peak memory of this process in GiB: allocated memory on a GPU, resident memory on a CPU."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def random_numbers(device: torch.device) -> Callable[[], None]:
    """Save torch's RNG states of the CPU and of `device`, and return a function that restores them."""
    cpu_state = torch.get_rng_state()
    cuda_state = torch.cuda.get_rng_state(device) if device.type == 'cuda' else None

    def restore() -> None:
        torch.set_rng_state(cpu_state)
        if cuda_state is not None:
            torch.cuda.set_rng_state(cuda_state, device)

    return restore


@contextmanager
def memory_freed_after(device: torch.device) -> Iterator[None]:
    """On exit, free GPU memory that is kept alive only by reference cycles.

    A model, its optimizer and the CUDA graphs of its layers reference each other. Python frees them at some later time,
    and until then a second run in the same process has less GPU memory. On a CPU nothing is done: a garbage collection
    takes a quarter of a second.
    """
    try:
        yield
    finally:
        if device.type == 'cuda':
            gc.collect()
            torch.cuda.empty_cache()
