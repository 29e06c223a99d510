"""DeepSpeed ZeRO: its engine around the training task, with the same losses, gradients and files as other strategies.

The one module that uses DeepSpeed. DeepSpeed averages gradients over the ranks, so losses are multiplied by their
number.
"""

import importlib.util
import io
import logging
import os
from contextlib import redirect_stdout
from typing import Any

import torch
import torch.distributed as dist

from ..compat.deepspeed_private import flat_partitions, forget_process_groups, link_optimizer_state
from ..errors import ConfigError
from .broadcast_weights import RankZeroWeights, replace_parameters


class ZeroEngine:
    """A task and its optimizer under ZeRO.

    Args:
        task: The model whose call returns a loss.
        optimizer: The optimizer of its trained parameters.
        settings: DeepSpeed's configuration without 'auto' values.
        local_rank: Of this rank on its host; not every launcher sets it for DeepSpeed.

    Raises:
        ConfigError: DeepSpeed is missing or refuses the configuration.
    """

    def __init__(
        self, task: torch.nn.Module, optimizer: torch.optim.Optimizer, settings: dict[str, Any], local_rank: int = 0
    ) -> None:
        os.environ.setdefault('LOCAL_RANK', str(local_rank))
        deepspeed = _deepspeed()
        try:
            with redirect_stdout(io.StringIO()):  # it prints a log of its compilation
                if not any(hasattr(parameter, 'ds_id') for parameter in task.parameters()):
                    forget_process_groups()
                self.engine, *_ = deepspeed.initialize(model=task, optimizer=optimizer, config=settings)
        except (AssertionError, ValueError, TypeError) as error:
            raise ConfigError(f'DeepSpeed refuses its configuration: {error}') from error
        self.stage = self.engine.zero_optimization_stage()
        self.wrapped_optimizer: torch.optim.Optimizer = self.engine.optimizer.optimizer

    def __call__(self, batch: Any) -> torch.Tensor:
        """Return the task's loss of `batch`."""
        return self.engine(batch)

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Accumulate the gradients of `loss`; after the `last` micro-batch of a step, sum them over all ranks."""
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss * dist.get_world_size(), scale_wrt_gas=False)

    def step(self) -> torch.Tensor:
        """Clip the gradients, update the weights, and return the global L2 norm before clipping, a scalar."""
        self.engine.step()
        norm = self.engine.get_global_grad_norm()
        return torch.as_tensor(float(norm) if norm is not None else float('nan'))

    def close(self) -> None:
        """Remove DeepSpeed's hooks from the model, which would keep the engine and its process groups alive."""
        with redirect_stdout(io.StringIO()):
            self.engine.destroy()
        forget_process_groups()

    # Full tensors of what is trained; every rank calls each of these.

    def weight(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        """Return the full float32 master weight of a trained parameter, or a frozen parameter itself."""
        from deepspeed.utils import safe_get_full_fp32_param

        if not parameter.requires_grad:
            with _deepspeed().zero.GatheredParameters([parameter], enabled=self.stage == 3):
                return parameter.detach().clone()
        return safe_get_full_fp32_param(parameter).reshape(_shape(parameter))

    def set_weight(self, parameter: torch.nn.Parameter, value: torch.Tensor) -> None:
        """Replace a parameter and, if it is trained, its master weight."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

        value = value.to(self.engine.device)
        if not parameter.requires_grad:
            pass
        elif self.stage == 3:
            safe_set_local_fp32_param(parameter, self._shard(value.float(), parameter))
        else:
            safe_set_full_fp32_param(parameter, value.float())
        with _deepspeed().zero.GatheredParameters([parameter], modifier_rank=0, enabled=self.stage == 3):
            parameter.data.copy_(value)

    def states(self, parameter: torch.nn.Parameter) -> dict[str, Any]:
        """Return the full optimizer state of a trained parameter, empty before the first step."""
        from deepspeed.utils import safe_get_full_optimizer_state

        flat = next(iter(self.wrapped_optimizer.state.values()), {})
        full = {}
        for name, value in flat.items():
            sharded = torch.is_tensor(value) and value.dim()
            full[name] = safe_get_full_optimizer_state(parameter, name).reshape(_shape(parameter)) if sharded else value
        return full

    def set_all_states(self, parameters: list[torch.nn.Parameter], states: dict[int, dict[str, Any]]) -> None:
        """Replace the optimizer state of `parameters`; `states` has it by their index."""
        for index, values in states.items():
            self.set_states(parameters[index], values)

    def set_states(self, parameter: torch.nn.Parameter, values: dict[str, Any]) -> None:
        """Replace the optimizer state of a trained parameter."""
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        self._allocate(values)
        for name, value in values.items():
            if not torch.is_tensor(value) or not value.dim():
                continue
            value = value.to(self.engine.device).float()
            if self.stage == 3:
                safe_set_local_optimizer_state(parameter, self._shard(value, parameter), name)
            else:
                safe_set_full_optimizer_state(parameter, value, name)

    def _shard(self, value: torch.Tensor, parameter: torch.nn.Parameter) -> torch.Tensor:
        """Return this rank's shard of `value` under stage 3; DeepSpeed pads tensors to shards of equal size."""
        from deepspeed.utils import safe_get_local_fp32_param

        count = safe_get_local_fp32_param(parameter).numel()
        flat = torch.nn.functional.pad(value.flatten(), (0, count * dist.get_world_size() - value.numel()))
        return flat.narrow(0, dist.get_rank() * count, count)

    def _allocate(self, values: dict[str, Any]) -> None:
        """Allocate the optimizer state, which exists only after the first step otherwise."""
        if self.wrapped_optimizer.state:
            return
        for flat in flat_partitions(self.engine.optimizer, self.stage):
            self.wrapped_optimizer.state[flat] = {
                name: torch.zeros_like(flat) if torch.is_tensor(value) and value.dim() else _copy(value)
                for name, value in values.items()
            }
        link_optimizer_state(self.engine.optimizer, self.stage)


def partition(
    llm: torch.nn.Module, weights: RankZeroWeights, settings: dict[str, Any], device: torch.device, local_rank: int
) -> None:
    """Shard the weights of `llm` over all ranks in place, as stage 3 does; rank 0 broadcasts them.

    Args:
        llm: The model.
        weights: Its weights.
        settings: DeepSpeed's configuration without 'auto' values.
        device: Of this rank.
        local_rank: Of this rank on its host; not every launcher sets it for DeepSpeed.

    Raises:
        ConfigError: DeepSpeed is missing or refuses the configuration.
    """
    os.environ.setdefault('LOCAL_RANK', str(local_rank))
    deepspeed = _deepspeed()
    weights.strip(llm)
    bf16, first = settings['bf16']['enabled'], None

    def sharded(name: str, parameter: torch.nn.Parameter) -> torch.nn.Parameter:
        nonlocal first
        dtype = torch.bfloat16 if bf16 and parameter.is_floating_point() else parameter.dtype
        module = torch.nn.Module()
        module.weight = torch.nn.Parameter(weights.take(name, device, dtype), requires_grad=parameter.requires_grad)
        # Either broadcasts rank 0's values, of which each rank keeps a shard.
        if first is None:
            deepspeed.zero.Init(module=module, config_dict_or_path=settings)
            first = module.weight
        else:
            first.convert_to_zero_parameters(param_list=[module.weight])
        return module.weight

    try:
        with redirect_stdout(io.StringIO()):
            forget_process_groups()
            deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)  # uses the existing group
            replace_parameters(llm, sharded)
    except (AssertionError, ValueError, TypeError) as error:
        raise ConfigError(f'DeepSpeed refuses its configuration: {error}') from error
    weights.fill_buffers(llm, device)


def _copy(value: Any) -> Any:
    return value.clone() if torch.is_tensor(value) else value


def _shape(parameter: torch.nn.Parameter) -> torch.Size:
    return getattr(parameter, 'ds_shape', parameter.shape)


def require_deepspeed() -> None:
    """Refuse a ZeRO strategy where DeepSpeed is not installed, without importing it.

    Raises:
        ConfigError: It is not installed.
    """
    if importlib.util.find_spec('deepspeed') is None:
        raise ConfigError(
            'the strategies zero1 to zero3 need DeepSpeed, which is not installed: pip install "xtune[deepspeed]", or '
            'use --strategy fsdp2'
        )


def _deepspeed() -> Any:
    os.environ.setdefault('DS_ACCELERATOR', 'cuda' if torch.cuda.is_available() else 'cpu')
    os.environ.setdefault('DEEPSPEED_LOG_LEVEL', 'error')
    try:
        import deepspeed
    except ImportError as error:
        raise ConfigError(f'DeepSpeed, which zero1 to zero3 need, cannot be imported: {error}') from error
    logging.getLogger('DeepSpeed').setLevel(logging.ERROR)
    return deepspeed
