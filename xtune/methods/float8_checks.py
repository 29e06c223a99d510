"""Checks of a float8 base, before data are prepared."""

from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig

from ..config.specs import ModelSpec
from ..errors import ConfigError, ModelError
from ..ops.float8_linear import Float8Config
from ..ops.float8_matmul import MULTIPLE, scaled_matmul, to_float8

_MIN_CAPABILITY = (8, 9)  # Ada; Hopper is 9.0
# Values of lora.init_lora_weights that do not use the base's weights.
_INITS = (True, False, 'gaussian', 'orthogonal')
_INSTEAD = 'use a lora or qlora preset'


def float8_config(quantization: Callable | None) -> Float8Config | None:
    """Return the config of a float8 base; None if section `quantization` is missing or of another type.

    Raises:
        ConfigError: Its values are of another type.
    """
    if quantization is None or quantization.func is not Float8Config:
        return None
    config = quantization()
    if not isinstance(config.skip, (list, tuple)) or not all(isinstance(part, str) for part in config.skip):
        raise ConfigError(f'quantization.skip is a list of parts of names, got {config.skip!r}')
    if type(config.last) is not int or config.last < 0:
        raise ConfigError(f'quantization.last is a number of layers, 0 or more, got {config.last!r}')
    return config


def check_float8(spec: ModelSpec, device: torch.device) -> None:
    """Refuse a float8 base that cannot be trained on; accept other bases.

    Raises:
        ConfigError: Other options are incompatible with it.
        ModelError: The device does not support float8.
    """
    if float8_config(spec.quantization) is None:
        return
    if spec.lora is None:
        raise ConfigError('a float8 base cannot be trained: set lora, or quantization = None')
    if spec.precision == 'fp32':
        raise ConfigError(
            "precision='fp32', but float8 matmuls return bf16: set precision='auto', or use a lora preset"
        )
    _check_adapter(spec.lora.func, spec.lora.keywords)
    problem = device_problem(device)
    if problem:
        raise ModelError(f'a float8 base needs {problem}; {_INSTEAD}')


def _check_adapter(config_class: Callable, arguments: dict[str, Any]) -> None:
    # The config is not built: some classes then require packages or more arguments.
    if not (isinstance(config_class, type) and issubclass(config_class, LoraConfig)):
        name = getattr(config_class, '__qualname__', config_class)
        raise ConfigError(
            f'lora.type={name} on a float8 base: only LoraConfig of peft is known not to change the base weights; use '
            'it, or a lora preset'
        )
    if arguments.get('use_dora'):
        raise ConfigError(
            'lora.use_dora=True on a float8 base: DoRA uses the base weights in every step, of which float8 has only a '
            'rounded copy; set it to False, or use a lora preset'
        )
    init = arguments.get('init_lora_weights', True)
    if init not in _INITS:
        raise ConfigError(
            f'lora.init_lora_weights={init!r} on a float8 base: it initializes the adapter from the base weights, of '
            f'which float8 has only a rounded copy; set one of {", ".join(map(repr, _INITS))}, or use a lora preset'
        )


def device_problem(device: torch.device) -> str | None:
    """Return which requirement of float8 matmuls `device` does not meet, as text; None if it meets all."""
    if device.type != 'cuda':
        return f'a CUDA GPU, and this machine has none ({device.type})'
    name, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
    return gpu_problem(name, capability, torch.version.hip) or _kernel_problem(device, name)


def gpu_problem(name: str, capability: tuple[int, int], hip: str | None) -> str | None:
    """Return the same for a GPU, given its name, its compute capability and torch's ROCm version."""
    if hip:
        return f'an NVIDIA GPU, and this torch is for ROCm {hip} ({name}), whose float8 formats differ'
    if capability < _MIN_CAPABILITY:
        required, actual = ('.'.join(map(str, version)) for version in (_MIN_CAPABILITY, capability))
        return f'a GPU of compute capability {required} (Ada, Hopper) or later, and {name} has {actual}'
    return None


def _kernel_problem(device: torch.device, name: str) -> str | None:
    """Return torch's error for a small matmul, or None: not every release has kernels for every GPU."""
    ones, scales = to_float8(torch.ones(MULTIPLE, MULTIPLE, device=device))
    try:
        scaled_matmul(ones, scales, ones, scales.reshape(1, -1), fast=True)
    except RuntimeError as error:  # such as: no kernel for this GPU
        line = str(error).strip().partition('\n')[0]
        return f'float8 kernels for {name}, and torch {torch.__version__} refuses: {line}'
    return None
