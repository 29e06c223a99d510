"""What a device and a host hold when weights, gradients and optimizer state are sharded: computed from sizes.

With N devices, L layers, width H, vocabulary V and T tokens in a forward pass, and activations of all layers
recomputed, a device under FSDP2 holds its shards and the largest of what follows.

    shards    bytes of all frozen weights / N, and of what is trained: 8 (float32 weight and gradient) and the state of
              the optimizer. With offload they lie in host memory
    gathering embedding and head twice (as received, and as computed with: 2 bytes each), two layers
    loss      embedding and head, T x V x 12 (logits in bf16 and float32, and the gradients of both), inputs of layers
    backward  embedding and head, two layers, inputs of all layers (T x H x 2 each), 40 x T x H of the layer at work
    full      loss and two layers; or, in the optimizer step, 4 bytes a parameter / N; with offload, gathering and
              gradients on their way to the host: 0.4 bytes a parameter of the layers, 1.07 of embedding and head

This is within 4 % of the peaks that `tools/benchmark_devices.py --model 70b` measured on two H200
(`tools/devices/layers_70b.json`), from which the factors of the last line are.
"""

from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig

from ..config.wire import Job
from ..engine.prepare_model import add_meta_adapter
from ..utils.model_structure import layers_of
from .meta_model import planned_meta_model
from .optimizer_state import state_bytes_each
from .random_init import packed_bytes
from .variants import shared, with_values

BF16 = 2
# Float32 weight and gradient of a trained value.
WEIGHT_AND_GRADIENT = 8
# The scales of NF4, quantised themselves: 0.516 bytes a value in all.
SCALES = 1.032
# Gradients on their way to the host: bytes a parameter of the layers, and of embedding and head.
LEAVING = (0.4, 1.07)


@dataclass(frozen=True)
class Parts:
    """Sizes that decide what devices hold. `layer` and `frozen` are bytes, as a quantised base has them."""

    full: bool  # every weight is trained
    layers: int
    layer: float  # of the largest layer, as it is gathered: packed, or bf16
    frozen: float
    in_layers: int  # parameters of the layers, without adapter
    ends: int  # parameters of embedding and head
    trained: int  # parameters
    state: float  # bytes the optimizer keeps of a trained parameter
    width: int
    vocabulary: int
    tokens: int  # of a device in a forward pass

    @property
    def shards(self) -> float:
        """Bytes that all devices hold together as long as the run lasts."""
        return self.frozen + self.trained * (WEIGHT_AND_GRADIENT + self.state)

    @property
    def loaded(self) -> float:
        """Bytes of one copy of the base as it is read: float32 if it is trained, else bf16."""
        return (self.in_layers + self.ends) * (4 if self.full else BF16)


def parts_of(job: Job, config: PreTrainedConfig) -> Parts:
    """Return the sizes of the run `job` of the model of `config`.

    Raises:
        ModelError: The model cannot be built.
    """
    job = shared(with_values(job, checkpointing='none'))
    model = add_meta_adapter(planned_meta_model(job, config, torch.bfloat16), job.model)
    full, layers = job.lora is None, layers_of(model)
    inside = {id(p) for layer in layers for p in layer.parameters()}
    base = [p for p in model.parameters() if full or not p.requires_grad]
    embedding = model.get_input_embeddings().weight
    return Parts(
        full=full,
        layers=len(layers),
        layer=max(sum(_gathered(p) for p in layer.parameters() if full or not p.requires_grad) for layer in layers),
        frozen=0.0 if full else sum(_gathered(p) for p in base),
        in_layers=sum(p.numel() for p in base if id(p) in inside),
        ends=sum(p.numel() for p in base if id(p) not in inside),
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        state=state_bytes_each(job),
        width=embedding.shape[1],
        vocabulary=embedding.shape[0],
        tokens=job.schedule.batch_size * job.values.max_length,
    )


def _gathered(parameter: torch.nn.Parameter) -> float:
    packed = 'quant_type' in vars(parameter)
    return packed_bytes(parameter) * SCALES if packed else parameter.numel() * BF16


def passing(parts: Parts, devices: int, offload: bool) -> float:
    """Return the most bytes that a device holds for a while beside its shards."""
    two, ends = 2 * parts.layer, parts.ends * BF16
    inputs, logits = parts.tokens * parts.width * BF16 * parts.layers, parts.tokens * parts.vocabulary * 12
    gathering = 2 * ends + two
    moments = [gathering, ends + logits + inputs, ends + two + inputs + 40 * parts.tokens * parts.width]
    if parts.full:
        leaving = gathering + LEAVING[0] * parts.in_layers + LEAVING[1] * parts.ends
        moments += [ends + logits + inputs + two, leaving if offload else 4 * parts.trained / devices]
    return max(moments)


def sharded_peak(parts: Parts, devices: int, offload: bool) -> float:
    """Return the peak in bytes of each of `devices` devices under FSDP2, without what CUDA and NCCL take."""
    return passing(parts, devices, offload) + (0 if offload else parts.shards / devices)
