"""What a float8 base needs: said before data are prepared."""

from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig

from ..config.wire import Job
from ..errors import ConfigError, ModelError
from ..ops.float8_linear import Float8Config
from ..ops.float8_matmul import MULTIPLE, scaled_matmul, to_float8

_LEAST = (8, 9)  # Ada; Hopper has 9.0
# Starts of an adapter that do not look at the base's weights.
_STARTS = (True, False, 'gaussian', 'orthogonal')
_INSTEAD = 'take a lora or qlora preset'


def float8_of(job: Job) -> Float8Config | None:
    """Return the section `quantization` of a run if it asks for a float8 base.

    Raises:
        ConfigError: Its values are of another type.
    """
    if job.quantization is None or job.quantization.func is not Float8Config:
        return None
    config = job.quantization()
    if not isinstance(config.skip, (list, tuple)) or not all(isinstance(part, str) for part in config.skip):
        raise ConfigError(f'quantization.skip is a list of parts of names, got {config.skip!r}')
    if type(config.last) is not int or config.last < 0:
        raise ConfigError(f'quantization.last is a number of layers, 0 or more, got {config.last!r}')
    return config


def check(job: Job, device: torch.device) -> None:
    """Refuse a float8 base where it cannot be trained on; other bases pass.

    Raises:
        ConfigError: The config asks for what does not go with it.
        ModelError: The device has no float8.
    """
    if float8_of(job) is None:
        return
    if job.lora is None:
        raise ConfigError('a base in float8 cannot be trained itself: set lora, or quantization = None')
    if job.values.precision == 'fp32':
        raise ConfigError(
            "precision='fp32', but products in float8 give bf16: set precision='auto', or take a lora preset"
        )
    _check_adapter(job.lora.func, job.lora.keywords)
    problem = device_problem(device)
    if problem:
        raise ModelError(f'a base in float8 needs {problem}; {_INSTEAD}')


def _check_adapter(kind: Callable, arguments: dict[str, Any]) -> None:
    # Not built: some configs look for packages, or for more arguments, when they are.
    if not (isinstance(kind, type) and issubclass(kind, LoraConfig)):
        name = getattr(kind, '__qualname__', kind)
        raise ConfigError(
            f'lora.type={name} on a base in float8: only LoraConfig of peft is known to leave the '
            f'weights of the base alone; take it, or a lora preset'
        )
    if arguments.get('use_dora'):
        raise ConfigError(
            'lora.use_dora=True on a base in float8: DoRA computes with the weights of the base in every step, and '
            'float8 has only a rounded copy of them; set it to False, or take a lora preset'
        )
    start = arguments.get('init_lora_weights', True)
    if start not in _STARTS:
        raise ConfigError(
            f'lora.init_lora_weights={start!r} on a base in float8: it makes the adapter of the weights of the base, '
            f'of which float8 has only a rounded copy; set one of {", ".join(map(repr, _STARTS))}, or take a lora '
            'preset'
        )


def device_problem(device: torch.device) -> str | None:
    """Return what `device` lacks for products in float8, and what it is; None: nothing."""
    if device.type != 'cuda':
        return f'a CUDA GPU, and this machine has none ({device.type})'
    name, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
    return gpu_problem(name, capability, torch.version.hip) or _refusal(device, name)


def gpu_problem(name: str, capability: tuple[int, int], hip: str | None) -> str | None:
    """Return the same of a GPU, from its name, its compute capability, and the version of ROCm that torch is for."""
    if hip:
        return f'an NVIDIA GPU, and this torch is for ROCm {hip} ({name}), whose float8 is another'
    if capability < _LEAST:
        own = '.'.join(map(str, capability))
        return f'a GPU of compute capability {_LEAST[0]}.{_LEAST[1]} (Ada, Hopper) or later, and {name} has {own}'
    return None


def _refusal(device: torch.device, name: str) -> str | None:
    """Return what torch says to a small product, if it refuses: not every release has kernels for every GPU."""
    ones, scales = to_float8(torch.ones(MULTIPLE, MULTIPLE, device=device))
    try:
        scaled_matmul(ones, scales, ones, scales.reshape(1, -1), fast=True)
    except RuntimeError as error:  # one of them says that there is no kernel
        line = str(error).strip().partition('\n')[0]
        return f'float8 kernels for {name}, and torch {torch.__version__} refuses: {line}'
    return None
