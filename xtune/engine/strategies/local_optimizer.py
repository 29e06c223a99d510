"""Strategies whose optimizer is torch's own, over full tensors or DTensors."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from ...compat.torch_private import found_inf, takes_found_inf
from ...data.batches import MicroBatch
from ...parallel.fsdp import full_states, full_tensor, shard_like
from .base import Strategy


class LocalOptimizerStrategy(Strategy):
    """Each rank updates the weights or shards it holds. Subclasses place the model and reduce gradients."""

    def forward(self, micro_batch: MicroBatch) -> torch.Tensor:
        """See `Strategy`."""
        return self.task(micro_batch)

    def backward(self, loss: torch.Tensor, is_last: bool) -> None:
        """See `Strategy`."""
        loss.backward()

    def optimizer_step(self, values: torch.Tensor) -> list[float]:
        """See `Strategy`. A fused optimizer skips a non-finite update on the device, so it is queued first."""
        if takes_found_inf(self.optimizer):
            with found_inf(self.optimizer, (~values.isfinite()).any().float()):
                self._update()
            return self.read(values)
        on_host = self.read(values)
        if all(map(math.isfinite, on_host)):
            self._update()
        return on_host

    def _update(self) -> None:
        self.optimizer.step()
        if self.task.master_weights is not None:
            self.task.master_weights.write_back()

    def zero_grad(self) -> None:
        """See `Strategy`."""
        self.optimizer.zero_grad()

    def trained(self) -> list[torch.nn.Parameter]:
        """Return the parameters of the optimizer."""
        return [p for group in self.optimizer.param_groups for p in group['params']]

    def full_tensor(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        """See `Strategy`."""
        return full_tensor(self._master(parameter).detach())

    @torch.no_grad()
    def load_tensor(self, parameter: torch.nn.Parameter, value: torch.Tensor) -> None:
        """See `Strategy`."""
        master = self._master(parameter)
        master.copy_(shard_like(value, master))
        if master is not parameter:
            parameter.copy_(master)

    def optimizer_state(self, parameter: torch.nn.Parameter) -> dict[str, Any]:
        """See `Strategy`."""
        return full_states(self.optimizer.state.get(self._master(parameter), {}))

    def load_optimizer_state(self, parameters: list[torch.nn.Parameter], states: dict[int, dict[str, Any]]) -> None:
        """See `Strategy`."""
        sharded = {}
        for index, values in states.items():
            master = self._master(parameters[index])
            same_shape = {
                name for name, v in values.items() if torch.is_tensor(v) and v.dim() and v.shape == master.shape
            }
            sharded[index] = {n: shard_like(v, master) if n in same_shape else _clone(v) for n, v in values.items()}
        groups = self.optimizer.state_dict()['param_groups']
        self.optimizer.load_state_dict(dict(state=sharded, param_groups=groups))

    def _master(self, parameter: torch.nn.Parameter) -> torch.nn.Parameter:
        master_weights = self.task.master_weights
        has_master = master_weights is not None and parameter.requires_grad
        return master_weights.of(parameter) if has_master else parameter


def clip(parameters: Sequence[torch.nn.Parameter], max_grad_norm: float | None) -> torch.Tensor:
    """Clip the gradients of `parameters` to `max_grad_norm`, and return their L2 norm before that, a scalar."""
    parameters = [p for p in parameters if p.grad is not None]
    norm = full_tensor(torch.nn.utils.get_total_norm([p.grad for p in parameters]))
    if max_grad_norm:
        # A non-finite norm would make all gradients non-finite, and hide the parameter that caused it.
        torch.nn.utils.clip_grads_with_norm_(parameters, max_grad_norm, norm.nan_to_num(0.0, 0.0, 0.0))
    return norm


def _clone(value: Any) -> Any:
    return value.clone() if torch.is_tensor(value) else value  # not a view of a memory-mapped file
