"""float32 master weights of parameters that compute in bf16.

bf16 has eight bits of precision, so small updates would be rounded away. The optimizer therefore updates a float32
master weight, and the model computes with the master weight rounded to bf16. The gradients of a step's micro-batches
are accumulated in float32 too (Micikevicius et al., Mixed Precision Training, 2018). Unlike under autocast, no
activation is cast; peft casts each one to the type of the adapter.
"""

import weakref
from functools import partial

import torch

from ..compat.torch_private import copy_all_


class MasterWeights:
    """The master weights of all trained parameters of `llm`, which compute in `dtype` from now on.

    Args:
        llm: The model; its trained parameters are in float32, and become the master weights.
        dtype: The compute type.
    """

    def __init__(self, llm: torch.nn.Module, dtype: torch.dtype) -> None:
        self._masters: dict[torch.nn.Parameter, torch.nn.Parameter] = {}
        for parameter in llm.parameters():
            if parameter.requires_grad:
                self._masters[parameter] = torch.nn.Parameter(parameter.data)
                parameter.data = parameter.data.to(dtype)
                # A weak reference: the garbage collector cannot see through a hook, and would never free a parameter
                # that its own hook refers to.
                accumulate = partial(_accumulate, weakref.ref(self._masters[parameter]))
                parameter.register_post_accumulate_grad_hook(accumulate)

    def of(self, parameter: torch.nn.Parameter) -> torch.nn.Parameter:
        """Return the master weight of `parameter`; its `grad` is the float32 gradient."""
        return self._masters[parameter]

    @torch.no_grad()
    def write_back(self) -> None:
        """Round the master weights into the parameters; call it after each change of a master weight."""
        # One launch for all: an adapter has hundreds of small tensors.
        copy_all_([parameter.data for parameter in self._masters], [m.data for m in self._masters.values()])


def _accumulate(master: 'weakref.ref[torch.nn.Parameter]', parameter: torch.nn.Parameter) -> None:
    """Add a gradient to the master weight's as soon as it exists, so that it is not kept in both types."""
    master, gradient = master(), parameter.grad
    parameter.grad = None
    if master.grad is None:
        master.grad = gradient.float()
    else:
        master.grad.add_(gradient)
