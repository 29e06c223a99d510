"""FSDP2: each process holds a slice of every weight, gradient and optimizer state, and one layer at a time is whole.

Frozen weights keep their type, NF4 ones included; what is trained is in float32, as on one device. Gradients are
summed, not averaged: the loss is divided by the trained tokens of all processes already.
"""

import torch
import torch.distributed as dist
from peft import PeftModel
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ..utils.model_structure import layers_of
from .broadcast_weights import Weights, replace_parameters


def shard(
    llm: torch.nn.Module, weights: Weights, device: torch.device, dtype: torch.dtype, offload: bool = False
) -> torch.nn.Module:
    """Spread `llm`, layer by layer, over all processes, in place, and return it.

    Args:
        llm: The model, with its adapter if it has one.
        weights: Its weights, which rank 0 hands out.
        device: Where slices are gathered and computed.
        dtype: The compute type, in which float32 weights are gathered; gradients are summed in float32.
        offload: Keep the slices in host memory.

    Raises:
        ModelError: No layers can be told apart in it.
    """
    weights.strip(llm)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    policy = CPUOffloadPolicy(pin_memory=device.type == 'cuda') if offload else OffloadPolicy()
    precision = MixedPrecisionPolicy() if dtype == torch.float32 else MixedPrecisionPolicy(dtype, torch.float32)
    # Not the adapter's wrapper: generating calls the model below it.
    root = llm.get_base_model() if isinstance(llm, PeftModel) else llm
    for layer in [*layers_of(llm), root]:
        fully_shard(layer, mesh=mesh, offload_policy=policy, mp_policy=precision)
    for module in llm.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            # Not all backends reduce with a factor; summing needs none.
            module.set_force_sum_reduction_for_comms(True)

    def slices(name: str, parameter: DTensor) -> DTensor:
        # The slices are as even as those that fully_shard left room for.
        spread = distribute_tensor(weights.take(name, device), mesh, parameter.placements, src_data_rank=0)
        return spread.to('cpu') if offload else spread

    replace_parameters(llm, slices)
    weights.fill_buffers(llm, device)
    return llm


def reshard(llm: torch.nn.Module) -> None:
    """Let every module of `llm` hold its slices again; a model without slices stays as it is.

    After a forward pass without gradients the outermost module keeps its whole parameters, in the compute type, in the
    place of its slices: the optimizer does not know them, and FSDP2 frees their memory later.
    """
    for module in llm.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return `tensor` with the slices of all processes; every process must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
    """Return `tensor`, which is whole in every process, spread as `model` is."""
    if not isinstance(model, DTensor):
        return tensor
    moved = tensor.to(model.device_mesh.device_type)
    spread = distribute_tensor(moved, model.device_mesh, model.placements, src_data_rank=None)
    return spread.to(model.device)


def full_states(states: dict) -> dict:
    """Return one parameter's optimizer state with whole tensors; every process must ask for it."""
    return {name: full_tensor(value) if torch.is_tensor(value) else value for name, value in states.items()}
