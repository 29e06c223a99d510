"""The interface of a parallelism strategy."""

from abc import ABC, abstractmethod
from typing import Any, Protocol

import torch

from ...data.batches import MicroBatch
from ...models.loading.meta_init import MetaInit
from ...tasks.sft import SupervisedFineTuning


class ModelBuilder(Protocol):
    """Builds the model to train, in one call or in the steps that sharded loading needs."""

    dtype: torch.dtype

    def build(self) -> torch.nn.Module:
        """Return the full model with its adapter, on the device of this rank."""

    def load_base_on_cpu(self) -> torch.nn.Module:
        """Return the base model in CPU memory."""

    def meta_init(self, model: torch.nn.Module) -> MetaInit | str:
        """Return what other ranks build `model` from on the meta device, or the reason why they cannot."""

    def finish(self, model: torch.nn.Module) -> torch.nn.Module:
        """Return a base model, with weights or on the meta device, with its adapter."""

    def report(self, model: torch.nn.Module) -> None:
        """Print the model summary, before weights are sharded."""


class Strategy(ABC):
    """How the model, its gradients and its optimizer state are distributed over the ranks of a run.

    A run calls `place` once, `attach` once, and then for each optimizer step: `forward` and `backward` for each
    micro-batch, `reduce_and_clip`, `optimizer_step`, `zero_grad`. All ranks make the same calls in the same order.
    """

    task: SupervisedFineTuning
    optimizer: torch.optim.Optimizer

    @abstractmethod
    def place(self, builder: ModelBuilder) -> torch.nn.Module:
        """Return the model to train, on its device or sharded over the ranks.

        Raises:
            ModelError: The model, its quantization or its adapter cannot be built.
            ConfigError: DeepSpeed is missing or rejects its configuration.
        """

    def attach(self, task: SupervisedFineTuning, optimizer: torch.optim.Optimizer) -> None:
        """Train `task` with `optimizer`, which holds its trained parameters."""
        self.task, self.optimizer = task, optimizer

    @abstractmethod
    def forward(self, micro_batch: MicroBatch) -> torch.Tensor:
        """Return the loss of `micro_batch` summed over its label tokens, a scalar."""

    @abstractmethod
    def backward(self, loss: torch.Tensor, is_last: bool) -> None:
        """Add the gradients of the scalar `loss`; `is_last`: it is the last micro-batch of the step."""

    @abstractmethod
    def reduce_and_clip(self, max_grad_norm: float | None) -> torch.Tensor:
        """Sum gradients over all ranks, clip them to the global L2 norm `max_grad_norm` (None: no clipping).

        Returns:
            The norm before clipping, a scalar.
        """

    @abstractmethod
    def optimizer_step(self, values: torch.Tensor) -> list[float]:
        """Update the weights if all `values` are finite, and return `values` on the host: the step's only host sync."""

    @abstractmethod
    def zero_grad(self) -> None:
        """Drop all gradients."""

    def read(self, values: torch.Tensor) -> list[float]:
        """Copy `values` to the host. This waits for the device; `optimizer_step` calls it once."""
        return values.tolist()

    @abstractmethod
    def full_tensor(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        """Return the full value of a parameter: its master weight, if it has one. A collective call."""

    @abstractmethod
    def load_tensor(self, parameter: torch.nn.Parameter, value: torch.Tensor) -> None:
        """Replace a parameter, and its master weight, by the full tensor `value`. A collective call."""

    @abstractmethod
    def optimizer_state(self, parameter: torch.nn.Parameter) -> dict[str, Any]:
        """Return the optimizer state of a trained parameter as full tensors; empty before the first step."""

    @abstractmethod
    def load_optimizer_state(self, parameters: list[torch.nn.Parameter], states: dict[int, dict[str, Any]]) -> None:
        """Replace the optimizer state; keys of `states` are positions in `parameters`, all trained parameters."""

    def close(self) -> None:  # noqa: B027  most strategies have nothing to release
        """Release resources that outlive the training, such as hooks of an engine."""
