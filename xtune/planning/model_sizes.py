"""Sizes of a model, and the memory that a run cannot do without, from the model on the meta device."""

from dataclasses import dataclass

import torch

from ..utils.experts import expert_tensors
from ..utils.model_structure import layers_of
from .random_init import quantized_bytes

# Bytes of a trained value: its float32 weight and its float32 gradient.
WEIGHT_AND_GRADIENT = 8


@dataclass(frozen=True)
class ModelSizes:
    """Parameters of a model with its adapter, and its dimensions.

    Args:
        parameters: All parameters.
        trained: Trained parameters.
        largest: Parameters of the largest tensor.
        experts: Parameters of expert tensors, which quantization of linear layers does not reach.
        layers: Decoder layers.
        hidden_size: Width of the layer inputs.
    """

    parameters: int
    trained: int
    largest: int
    experts: int
    layers: int
    hidden_size: int

    @classmethod
    def of(cls, model: torch.nn.Module) -> 'ModelSizes':
        """Return the sizes of a model with its adapter, without quantization."""
        counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
        return cls(
            parameters=sum(n for n, _ in counts),
            trained=sum(n for n, trained in counts if trained),
            largest=max(n for n, _ in counts),
            experts=sum(p.numel() for p in expert_tensors(model)),
            layers=len(layers_of(model)),
            hidden_size=model.get_input_embeddings().weight.shape[1],
        )


@dataclass(frozen=True)
class LowerBound:
    """Bytes that a run needs for certain on a device that holds the full model; activations come on top.

    Args:
        frozen: Weights that are not trained, and buffers.
        trained: Trained weights with their gradients and optimizer state.
    """

    frozen: int
    trained: int

    @classmethod
    def of(cls, model: torch.nn.Module, state_bytes: float) -> 'LowerBound':
        """Return the lower bound of a run of a meta model; `state_bytes` of optimizer state per trained value."""
        parameters = list(model.parameters())
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        frozen = sum(quantized_bytes(p) for p in parameters if not p.requires_grad)
        frozen += sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
        return cls(frozen, round(trained * (WEIGHT_AND_GRADIENT + state_bytes)))

    @property
    def total(self) -> int:
        """Bytes of both."""
        return self.frozen + self.trained
