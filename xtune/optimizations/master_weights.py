"""float32 masters of weights that compute in bf16.

bf16 keeps eight bits, so a small update of a weight would be rounded away. The optimizer therefore changes a master in
float32, and the model computes with the master rounded; the gradients of the micro-batches of a step are added up in
float32 too (Micikevicius et al., Mixed Precision Training, 2018). Against autocast, no activation is ever cast: peft
casts each one to the type of the adapter.
"""

import weakref
from functools import partial

import torch


class MasterWeights:
    """The masters of all trained parameters of `llm`, which compute in `dtype` from now on.

    Args:
        llm: The model; its trained parameters are float32, and become the masters.
        dtype: The compute type.
    """

    def __init__(self, llm: torch.nn.Module, dtype: torch.dtype) -> None:
        self._of: dict[torch.nn.Parameter, torch.nn.Parameter] = {}
        for parameter in llm.parameters():
            if parameter.requires_grad:
                self._of[parameter] = torch.nn.Parameter(parameter.data)
                parameter.data = parameter.data.to(dtype)
                # Weakly: Python cannot see through a hook, and would never free a parameter that its own hook holds.
                collect = partial(_collect, weakref.ref(self._of[parameter]))
                parameter.register_post_accumulate_grad_hook(collect)

    def of(self, parameter: torch.nn.Parameter) -> torch.nn.Parameter:
        """Return the master of `parameter`, which has its gradient."""
        return self._of[parameter]

    @torch.no_grad()
    def write_back(self) -> None:
        """Round the masters into the weights; call it after each change of a master."""
        # One launch for all: an adapter has hundreds of small tensors.
        torch._foreach_copy_([parameter.data for parameter in self._of], [m.data for m in self._of.values()])


def _collect(of: 'weakref.ref[torch.nn.Parameter]', parameter: torch.nn.Parameter) -> None:
    """Add a gradient to the master's as soon as it is there, so that none is kept in both types."""
    master, gradient = of(), parameter.grad
    parameter.grad = None
    if master.grad is None:
        master.grad = gradient.float()
    else:
        master.grad.add_(gradient)
