"""Weights and optimizer states of what is trained, whole, whichever way a strategy spreads them.

Every process of a run makes the same calls in the same order. `ZeroEngine` has the same methods.
"""

from typing import Any

import torch

from ..optimizations.master_weights import MasterWeights
from ..parallel.fsdp import full_states, full_tensor, shard_like


class Access:
    """Reads and writes parameters that are tensors or DTensors, and the state of `optimizer` for them.

    Of a parameter with a master that one is read and written.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, masters: MasterWeights | None = None) -> None:
        self.optimizer, self.masters = optimizer, masters

    def weight(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        """Return the whole parameter."""
        return full_tensor(self._master(parameter).detach())

    @torch.no_grad()
    def set_weight(self, parameter: torch.nn.Parameter, value: torch.Tensor) -> None:
        """Replace a parameter by `value`, which is whole."""
        master = self._master(parameter)
        master.copy_(shard_like(value, master))
        if master is not parameter:
            parameter.copy_(master)

    def states(self, parameter: torch.nn.Parameter) -> dict[str, Any]:
        """Return the optimizer's state of a parameter, empty before the first step."""
        return full_states(self.optimizer.state.get(self._master(parameter), {}))

    def _master(self, parameter: torch.nn.Parameter) -> torch.nn.Parameter:
        has_none = self.masters is None or not parameter.requires_grad
        return parameter if has_none else self.masters.of(parameter)

    def set_all_states(self, parameters: list[torch.nn.Parameter], states: dict[int, dict[str, Any]]) -> None:
        """Replace the optimizer's state; `states` counts the parameters, which are all of the optimizer's."""
        spread = {}
        for index, values in states.items():
            own = self._master(parameters[index])
            fits = {name for name, v in values.items() if torch.is_tensor(v) and v.dim() and v.shape == own.shape}
            spread[index] = {name: shard_like(v, own) if name in fits else _own_copy(v) for name, v in values.items()}
        groups = self.optimizer.state_dict()['param_groups']
        self.optimizer.load_state_dict(dict(state=spread, param_groups=groups))


def _own_copy(value: Any) -> Any:
    return value.clone() if torch.is_tensor(value) else value  # not a place in a mapped file
