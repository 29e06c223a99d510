"""Memory of a device when weights, gradients and optimizer state are sharded: computed from the sizes of the model.

With N devices, L layers, width H, vocabulary V, T tokens in a forward pass and activation checkpointing in all layers,
a device under FSDP2 holds its shards and the largest of the items below.

    shards    bytes of all frozen weights / N, and per trained value: 8 (float32 weight and gradient) and the state of
              the optimizer. With offload they are in host memory
    gathering embedding and lm_head twice (as received, and as computed with: 2 bytes each), two layers
    loss      embedding and lm_head, T x V x 12 (logits in bf16 and float32, and the gradients of both), layer inputs
    backward  embedding and lm_head, two layers, all layer inputs (T x H x 2 each), 40 x T x H of the current layer
    full      loss and two layers; or, in the optimizer step, 4 bytes a parameter / N; with offload, gathering and
              gradients on their way to the host: 0.4 bytes a parameter of the layers, 1.07 of embedding and lm_head

This is within 4 % of the peaks that `tools/benchmark_devices.py --model 70b` measured on two H200
(`tools/device_benchmark/layers_70b.json`). The factors of the last line come from these measurements.
"""

from dataclasses import dataclass

import torch

from ..utils.model_structure import layers_of
from .model_sizes import WEIGHT_AND_GRADIENT
from .random_init import quantized_bytes

BF16 = 2
# NF4 with its scales, which are quantized themselves, takes 0.516 bytes a value.
SCALES = 1.032
# Gradients on their way to the host: bytes a parameter of the layers, and of embedding and lm_head.
OFFLOADED_GRADIENTS = (0.4, 1.07)


@dataclass(frozen=True)
class ShardedSizes:
    """The sizes that decide the memory of a device. `layer` and `frozen` are bytes of the possibly quantized base."""

    full: bool  # full fine-tuning
    layers: int
    layer: float  # of the largest layer as it is gathered: packed 4-bit weights, or bf16
    frozen: float
    in_layers: int  # parameters of the layers, without adapter
    ends: int  # parameters of embedding and lm_head
    trained: int  # parameters
    state: float  # bytes of optimizer state per trained parameter
    hidden_size: int
    vocabulary: int
    tokens: int  # of a device in a forward pass

    @classmethod
    def of(cls, model: torch.nn.Module, full: bool, state_bytes: float, tokens: int) -> 'ShardedSizes':
        """Return the sizes of a meta model with its adapter.

        Args:
            model: The model.
            full: Whether all weights are trained.
            state_bytes: Bytes of optimizer state per trained value.
            tokens: Tokens of a micro-batch on a device.
        """
        layers = layers_of(model)
        in_layers = {id(p) for layer in layers for p in layer.parameters()}
        base = [p for p in model.parameters() if full or not p.requires_grad]
        embedding = model.get_input_embeddings().weight
        return cls(
            full=full,
            layers=len(layers),
            layer=max(sum(_gathered(p) for p in layer.parameters() if full or not p.requires_grad) for layer in layers),
            frozen=0.0 if full else sum(_gathered(p) for p in base),
            in_layers=sum(p.numel() for p in base if id(p) in in_layers),
            ends=sum(p.numel() for p in base if id(p) not in in_layers),
            trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
            state=state_bytes,
            hidden_size=embedding.shape[1],
            vocabulary=embedding.shape[0],
            tokens=tokens,
        )

    @property
    def shards(self) -> float:
        """Bytes that all devices hold together throughout the run."""
        return self.frozen + self.trained * (WEIGHT_AND_GRADIENT + self.state)

    @property
    def loaded(self) -> float:
        """Bytes of one copy of the base as it is loaded: in float32 if it is trained, else in bf16."""
        return (self.in_layers + self.ends) * (4 if self.full else BF16)


def _gathered(parameter: torch.nn.Parameter) -> float:
    is_4bit = 'quant_type' in vars(parameter)
    return quantized_bytes(parameter) * SCALES if is_4bit else parameter.numel() * BF16


def temporary_peak(sizes: ShardedSizes, devices: int, offload: bool) -> float:
    """Return the most bytes that a device holds for a while in addition to its shards."""
    two_layers, ends = 2 * sizes.layer, sizes.ends * BF16
    inputs = sizes.tokens * sizes.hidden_size * BF16 * sizes.layers
    logits = sizes.tokens * sizes.vocabulary * 12
    gathering = 2 * ends + two_layers
    backward = ends + two_layers + inputs + 40 * sizes.tokens * sizes.hidden_size
    peaks = [gathering, ends + logits + inputs, backward]
    if sizes.full:
        of_layers, of_ends = OFFLOADED_GRADIENTS
        offloading = gathering + of_layers * sizes.in_layers + of_ends * sizes.ends
        peaks += [ends + logits + inputs + two_layers, offloading if offload else 4 * sizes.trained / devices]
    return max(peaks)


def sharded_peak(sizes: ShardedSizes, devices: int, offload: bool) -> float:
    """Return the peak in bytes of each of `devices` devices under FSDP2, without the memory of CUDA and NCCL."""
    return temporary_peak(sizes, devices, offload) + (0 if offload else sizes.shards / devices)
