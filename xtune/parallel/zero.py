"""DeepSpeed ZeRO: its engine around our task, with losses, gradients and files that mean what they mean elsewhere.

The one place that touches DeepSpeed; its tests fail if what is used here moves. DeepSpeed averages gradients over the
processes, so losses are multiplied by their number.
"""

import importlib.util
import io
import logging
import os
from contextlib import redirect_stdout
from typing import Any

import torch
import torch.distributed as dist

from ..errors import ConfigError
from .broadcast_weights import Weights, replace_parameters


class ZeroEngine:
    """A task and its optimizer under ZeRO.

    Args:
        task: The model whose call returns a loss.
        optimizer: Over its trained parameters.
        settings: DeepSpeed's configuration without 'auto'.
        local_rank: Of this process on its host; not every launcher tells DeepSpeed.

    Raises:
        ConfigError: DeepSpeed is missing or refuses the configuration.
    """

    def __init__(
        self, task: torch.nn.Module, optimizer: torch.optim.Optimizer, settings: dict[str, Any], local_rank: int = 0
    ) -> None:
        os.environ.setdefault('LOCAL_RANK', str(local_rank))
        deepspeed = _deepspeed()
        try:
            with redirect_stdout(io.StringIO()):  # it prints what it compiles
                if not any(hasattr(parameter, 'ds_id') for parameter in task.parameters()):
                    _forget_groups()
                self.engine, *_ = deepspeed.initialize(model=task, optimizer=optimizer, config=settings)
        except (AssertionError, ValueError, TypeError) as error:
            raise ConfigError(f'DeepSpeed refuses its configuration: {error}') from error
        self.stage = self.engine.zero_optimization_stage()
        self.client: torch.optim.Optimizer = self.engine.optimizer.optimizer

    def __call__(self, batch: Any) -> torch.Tensor:
        """Return the task's loss of `batch`."""
        return self.engine(batch)

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Add the gradients of `loss`; on the `last` of a step they are summed over the processes."""
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss * dist.get_world_size(), scale_wrt_gas=False)

    def step(self) -> torch.Tensor:
        """Clip, update, and return the gradients' global L2 norm before clipping, a scalar."""
        self.engine.step()
        norm = self.engine.get_global_grad_norm()
        return torch.as_tensor(float(norm) if norm is not None else float('nan'))

    def close(self) -> None:
        """Take DeepSpeed's hooks off the model: through them it would hold the engine and its groups for ever."""
        with redirect_stdout(io.StringIO()):
            self.engine.destroy()
        _forget_groups()

    # What is trained, whole: each of these is called by every process.

    def weight(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        """Return the float32 master of a trained parameter; a frozen one, which has none, as it is."""
        from deepspeed.utils import safe_get_full_fp32_param

        if not parameter.requires_grad:
            with _deepspeed().zero.GatheredParameters([parameter], enabled=self.stage == 3):
                return parameter.detach().clone()
        return safe_get_full_fp32_param(parameter).reshape(_shape(parameter))

    def set_weight(self, parameter: torch.nn.Parameter, value: torch.Tensor) -> None:
        """Replace a parameter and, if it is trained, its master."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

        value = value.to(self.engine.device)
        if not parameter.requires_grad:
            pass
        elif self.stage == 3:
            safe_set_local_fp32_param(parameter, self._slice(value.float(), parameter))
        else:
            safe_set_full_fp32_param(parameter, value.float())
        with _deepspeed().zero.GatheredParameters([parameter], modifier_rank=0, enabled=self.stage == 3):
            parameter.data.copy_(value)

    def states(self, parameter: torch.nn.Parameter) -> dict[str, Any]:
        """Return the optimizer's state of a trained parameter, empty before the first step."""
        from deepspeed.utils import safe_get_full_optimizer_state

        flat = next(iter(self.client.state.values()), {})
        found = {}
        for name, value in flat.items():
            spread = torch.is_tensor(value) and value.dim()
            found[name] = safe_get_full_optimizer_state(parameter, name).reshape(_shape(parameter)) if spread else value
        return found

    def set_all_states(self, parameters: list[torch.nn.Parameter], states: dict[int, dict[str, Any]]) -> None:
        """Replace the optimizer's state; `states` counts the parameters."""
        for index, values in states.items():
            self.set_states(parameters[index], values)

    def set_states(self, parameter: torch.nn.Parameter, values: dict[str, Any]) -> None:
        """Replace the optimizer's state of a trained parameter."""
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        self._allocate(values)
        for name, value in values.items():
            if not torch.is_tensor(value) or not value.dim():
                continue
            value = value.to(self.engine.device).float()
            if self.stage == 3:
                safe_set_local_optimizer_state(parameter, self._slice(value, parameter), name)
            else:
                safe_set_full_optimizer_state(parameter, value, name)

    def _slice(self, value: torch.Tensor, parameter: torch.nn.Parameter) -> torch.Tensor:
        """Return this process' slice of `value` under stage 3; DeepSpeed cuts only what it can divide evenly."""
        from deepspeed.utils import safe_get_local_fp32_param

        count = safe_get_local_fp32_param(parameter).numel()
        flat = torch.nn.functional.pad(value.flatten(), (0, count * dist.get_world_size() - value.numel()))
        return flat.narrow(0, dist.get_rank() * count, count)

    def _allocate(self, values: dict[str, Any]) -> None:
        """Give the optimizer, which allocates at its first step, a state to write into."""
        if self.client.state:
            return
        zero = self.engine.optimizer
        for flat in zero.fp32_partitioned_groups_flat if self.stage == 3 else zero.single_partition_of_fp32_groups:
            self.client.state[flat] = {
                name: torch.zeros_like(flat) if torch.is_tensor(value) and value.dim() else _copy(value)
                for name, value in values.items()
            }
        if self.stage < 3:  # stage 3 looks the state up each time
            zero._lazy_init_hp_params_optimizer_state()


def partition(
    llm: torch.nn.Module, weights: Weights, settings: dict[str, Any], device: torch.device, local_rank: int
) -> None:
    """Spread the weights of `llm`, which rank 0 hands out, over all processes as stage 3 does, in place.

    Args:
        llm: The model.
        weights: Its weights.
        settings: DeepSpeed's configuration without 'auto'.
        device: Of this process.
        local_rank: Of this process on its host; not every launcher tells DeepSpeed.

    Raises:
        ConfigError: DeepSpeed is missing or refuses the configuration.
    """
    os.environ.setdefault('LOCAL_RANK', str(local_rank))
    deepspeed = _deepspeed()
    weights.strip(llm)
    bf16, first = settings['bf16']['enabled'], None

    def sliced(name: str, parameter: torch.nn.Parameter) -> torch.nn.Parameter:
        nonlocal first
        dtype = torch.bfloat16 if bf16 and parameter.is_floating_point() else parameter.dtype
        one = torch.nn.Module()
        one.weight = torch.nn.Parameter(weights.take(name, device, dtype), requires_grad=parameter.requires_grad)
        # Either sends rank 0's values to all, who keep a slice.
        if first is None:
            deepspeed.zero.Init(module=one, config_dict_or_path=settings)
            first = one.weight
        else:
            first.convert_to_zero_parameters(param_list=[one.weight])
        return one.weight

    try:
        with redirect_stdout(io.StringIO()):
            _forget_groups()
            deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)  # takes the group there is
            replace_parameters(llm, sliced)
    except (AssertionError, ValueError, TypeError) as error:
        raise ConfigError(f'DeepSpeed refuses its configuration: {error}') from error
    weights.fill_buffers(llm, device)


def _forget_groups() -> None:
    """Let DeepSpeed forget the process groups of a run in this process that is over."""
    from deepspeed.utils import groups

    groups._release_process_group_references(group=None)


def _copy(value: Any) -> Any:
    return value.clone() if torch.is_tensor(value) else value


def _shape(parameter: torch.nn.Parameter) -> torch.Size:
    return getattr(parameter, 'ds_shape', parameter.shape)


def require_deepspeed() -> None:
    """Refuse a ZeRO strategy where DeepSpeed is missing; it is not imported yet.

    Raises:
        ConfigError: It is not installed.
    """
    if importlib.util.find_spec('deepspeed') is None:
        raise ConfigError(
            'the strategies zero1 to zero3 need DeepSpeed, which is not installed: pip install "xtune[deepspeed]", or '
            'take --strategy fsdp2'
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
