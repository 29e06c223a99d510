"""The states of the random number generators of a rank, for checkpoints."""

import random
from typing import Any

import torch


def get_rng_state() -> dict[str, Any]:
    """Return the state of every random number generator that this rank uses in training."""
    version, numbers, gauss = random.getstate()
    state = dict(torch=torch.get_rng_state(), python=[version, list(numbers), gauss])
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore the generators to `state`."""
    torch.set_rng_state(state['torch'])
    version, numbers, gauss = state['python']
    random.setstate((version, tuple(numbers), gauss))
    if 'cuda' in state and torch.cuda.is_available():
        cuda_state = state['cuda']
        if isinstance(cuda_state, list):  # older checkpoints: the states of all GPUs
            cuda_state = cuda_state[torch.cuda.current_device() % len(cuda_state)]
        torch.cuda.set_rng_state(cuda_state)
