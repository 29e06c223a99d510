"""Refuse a run that cannot fit its GPU, before its weights are loaded.

Only a lower bound is checked: weights, optimizer state and gradients. Activations come on top, so a run that passes may
still need more memory; `xtune plan` estimates it.
"""

import torch

from ..config.specs import StepSpec
from ..config.strategy_traits import traits_of
from ..errors import ModelError
from ..methods.base_model import run_dtype
from ..parallel.compatibility import method_of_model
from .estimator import MemoryEstimator
from .model_sizes import LowerBound
from .units import GIB


def check_fit(step: StepSpec, num_ranks: int, device: torch.device) -> None:
    """Refuse a run if `device` is a GPU that cannot hold it, before data are prepared and weights are loaded.

    Sharded runs pass, and so do models that planning does not support.

    Raises:
        ModelError: The run does not fit.
    """
    if device.type != 'cuda' or not step.is_replicated(num_ranks):
        return
    try:
        bound = MemoryEstimator(step).lower_bound(run_dtype(step.model, device))
    except ModelError:  # loading the model tells whether it can be used at all
        return
    properties = torch.cuda.get_device_properties(device)
    memory, gpu = properties.total_memory, properties.name
    if bound.total > memory:
        raise does_not_fit(step.model.base_model, method_of_model(step.model), step.strategy.name, bound, memory, gpu)


def does_not_fit(base_model: str, method: str, strategy: str, bound: LowerBound, memory: int, gpu: str) -> ModelError:
    """Return the error of a run that needs more than the `memory` bytes of a GPU, with the changes that need less.

    Args:
        base_model: The model's folder or its name on the hub.
        method: As `xtune.parallel.compatibility` names methods.
        strategy: The strategy of the run.
        bound: The bytes that the run needs for certain.
        memory: The bytes that the GPU has.
        gpu: The name of the GPU.
    """
    # A run on one device with strategy fsdp2 has the option already.
    option = '' if traits_of(strategy).is_fsdp2 else ' --strategy fsdp2'
    changes = [
        (method == 'full', 'train an adapter (a lora or qlora preset)'),
        (method not in ('full', 'qlora'), 'take a base in 4 bits (a qlora preset)'),
        (True, f'spread it over several GPUs (NPROC_PER_NODE=2 xtune train ...{option})'),
    ]
    advice = ' or '.join(change for applies, change in changes if applies)
    return ModelError(
        f'{base_model} does not fit {gpu}, which has {memory / GIB:,.1f} GiB: frozen weights take '
        f'{bound.frozen / GIB:,.1f} GiB and trained parameters {bound.trained / GIB:,.1f} GiB (weights, gradients, '
        f'optimizer state), before any activation. {advice[0].upper()}{advice[1:]}; `xtune plan` estimates what fits'
    )
