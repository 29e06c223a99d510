"""FSDP2: each rank has a shard of every weight, gradient and optimizer state, and gathers one layer at a time.

Frozen weights keep their type, including NF4; trained weights are in float32, as on one device. Gradients are summed,
not averaged: the loss is already divided by the trained tokens of all ranks.
"""

import torch
import torch.distributed as dist
from peft import PeftModel
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ..utils.model_structure import layers_of
from .broadcast_weights import RankZeroWeights, replace_parameters


def shard(
    llm: torch.nn.Module, weights: RankZeroWeights, device: torch.device, dtype: torch.dtype, offload: bool = False
) -> torch.nn.Module:
    """Shard `llm`, layer by layer, over all ranks, in place, and return it.

    Args:
        llm: The model, with its adapter if it has one.
        weights: Its weights, which rank 0 broadcasts.
        device: The device that layers are gathered on and compute on.
        dtype: The compute type, in which float32 weights are gathered; gradients are summed in float32.
        offload: Keep the shards in CPU memory.

    Raises:
        ModelError: The model has no list of layers.
    """
    weights.strip(llm)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    policy = CPUOffloadPolicy(pin_memory=device.type == 'cuda') if offload else OffloadPolicy()
    precision = MixedPrecisionPolicy() if dtype == torch.float32 else MixedPrecisionPolicy(dtype, torch.float32)
    # Not peft's wrapper: generation calls the model inside it.
    root = llm.get_base_model() if isinstance(llm, PeftModel) else llm
    for layer in [*layers_of(llm), root]:
        fully_shard(layer, mesh=mesh, offload_policy=policy, mp_policy=precision)
    for module in llm.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            # Not all backends can reduce with a factor; a sum needs none.
            module.set_force_sum_reduction_for_comms(True)

    def sharded(name: str, parameter: DTensor) -> DTensor:
        # Same shard sizes as those of fully_shard.
        tensor = distribute_tensor(weights.take(name, device), mesh, parameter.placements, src_data_rank=0)
        return tensor.to('cpu') if offload else tensor

    replace_parameters(llm, sharded)
    weights.fill_buffers(llm, device)
    return llm


def reshard(llm: torch.nn.Module) -> None:
    """Reshard every module of `llm`; a model without FSDP2 is not changed.

    After a forward pass without gradients, the root module keeps its full parameters, in the compute type, instead of
    its shards. The optimizer does not know them, and FSDP2 frees their memory later.
    """
    for module in llm.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return the full tensor of a sharded one, any other as it is; every rank must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return `tensor`, which every rank has in full, sharded like `other`."""
    if not isinstance(other, DTensor):
        return tensor
    moved = tensor.to(other.device_mesh.device_type)
    sharded = distribute_tensor(moved, other.device_mesh, other.placements, src_data_rank=None)
    return sharded.to(other.device)


def full_states(state: dict) -> dict:
    """Return the optimizer state of one parameter with full tensors; every rank must call it."""
    return {name: full_tensor(value) if torch.is_tensor(value) else value for name, value in state.items()}
