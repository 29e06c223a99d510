"""Activation checkpointing of the first N decoder layers, which can change between optimizer steps."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..errors import ModelError
from ..utils.model_structure import layers_of
from .activation_offloading import OffloadedCheckpoint
from .layer_call import LayerCalls, make_call_replaceable


@dataclass(frozen=True)
class CheckpointPolicy:
    """Which decoder layers are checkpointed.

    Args:
        num_layers: The first layers of the model, because the backward pass has freed the activations of the others
            when it reaches them. None: all layers.
        offload: Keep the inputs of checkpointed layers in CPU memory.
    """

    num_layers: int | None = None
    offload: bool = False

    @classmethod
    def from_option(cls, value: str | int) -> 'CheckpointPolicy':
        """Return the policy of the option `activation_checkpointing`; 'auto' begins with all layers."""
        if isinstance(value, int):
            return cls(value)
        return cls(0 if value == 'none' else None, offload=value == 'offload')

    def check(self, model_layers: int) -> None:
        """Refuse a policy for more layers than the model has.

        Raises:
            ModelError: The model has fewer than `num_layers`.
        """
        if self.num_layers is not None and self.num_layers > model_layers:
            raise ModelError(
                f'activation_checkpointing={self.num_layers}, but the model has {model_layers} layers: set at most '
                f"{model_layers}, or 'all'"
            )


class ActivationCheckpointing:
    """The decoder layers of `llm` and their activation checkpointing. All state is in the layers themselves.

    Raises:
        ModelError: The model has no list of layers.
    """

    def __init__(self, llm: torch.nn.Module) -> None:
        self.layers = layers_of(llm)
        self._on_change: list[Callable[[], object]] = []
        for layer in self.layers:
            make_call_replaceable(layer)

    def __len__(self) -> int:
        """Return the number of decoder layers."""
        return len(self.layers)

    @property
    def calls(self) -> LayerCalls:
        """How layers are called without and with checkpointing."""
        return self.layers[0].calls

    @property
    def num_checkpointed(self) -> int:
        """Number of layers with activation checkpointing."""
        return sum(layer.layer_call is not self.calls.plain for layer in self.layers)

    @property
    def num_plain(self) -> int:
        """Number of layers without activation checkpointing."""
        return len(self) - self.num_checkpointed

    @property
    def policy(self) -> CheckpointPolicy:
        """The policy that is in force."""
        return CheckpointPolicy(self.num_checkpointed, isinstance(self.layers[0].layer_call, OffloadedCheckpoint))

    def on_change(self, callback: Callable[[], object]) -> None:
        """Call `callback` before each change of the policy."""
        self._on_change.append(callback)

    def apply(self, policy: CheckpointPolicy) -> None:
        """Checkpoint the layers of `policy`, and no other.

        Raises:
            ModelError: The model has fewer layers.
        """
        policy.check(len(self))
        for callback in self._on_change:
            callback()
        self._set_layer_calls(policy)

    def compile(self, backend: str = 'inductor', custom_functions: bool = False) -> None:
        """Compile the layers with their checkpointing, at their next call; see `LayerCalls.compiled`."""
        policy, calls = self.policy, LayerCalls.compiled(backend, custom_functions)
        for layer in self.layers:
            layer.calls = calls
        self._set_layer_calls(policy)

    def _set_layer_calls(self, policy: CheckpointPolicy) -> None:
        checkpointed = self.calls.checkpointed
        if policy.offload:  # one object for all: a layer's input is copied back during the backward of the next layer
            checkpointed = OffloadedCheckpoint(checkpointed)
        count = len(self) if policy.num_layers is None else policy.num_layers
        for index, layer in enumerate(self.layers):
            layer.layer_call = checkpointed if index < count else self.calls.plain
