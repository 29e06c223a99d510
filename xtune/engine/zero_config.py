"""The DeepSpeed configuration of a run: replaces 'auto' values and refuses values that contradict the config."""

import copy
from typing import Any

import torch

from ..config.sections import Schedule, Strategy
from ..config.strategy_traits import traits_of
from ..errors import ConfigError

# What DeepSpeed can offload from the device.
OFFLOAD = ('offload_optimizer', 'offload_param')


def zero_config(
    strategy: Strategy, schedule: Schedule, trains_adapter: bool, num_ranks: int, dtype: torch.dtype
) -> dict[str, Any]:
    """Return the DeepSpeed configuration of a run.

    Args:
        strategy: The section `strategy`.
        schedule: The section `schedule`.
        trains_adapter: An adapter is trained, otherwise all weights.
        num_ranks: The ranks of the run.
        dtype: The compute type; weights that are all trained in bf16 are kept so, with float32 master weights.

    Raises:
        ConfigError: The configuration contradicts a section of the config.
    """
    bf16 = not trains_adapter and dtype == torch.bfloat16
    configured, name = copy.deepcopy(strategy.deepspeed or {}), strategy.name
    for key, instead in (('optimizer', 'optimizer'), ('scheduler', 'schedule')):
        if configured.get(key):
            raise ConfigError(f'the DeepSpeed configuration has `{key}`; remove it and use the section `{instead}`')
    if _enabled(configured, 'fp16') is True:
        raise ConfigError("the DeepSpeed configuration enables fp16; remove it: precision is 'bf16' or 'fp32'")
    required = {
        'train_micro_batch_size_per_gpu': ('schedule.batch_size', schedule.batch_size),
        'gradient_accumulation_steps': ('schedule.gradient_accumulation_steps', schedule.gradient_accumulation_steps),
        'gradient_clipping': ('schedule.max_grad_norm', schedule.max_grad_norm or 0.0),
        'train_batch_size': (
            'schedule.batch_size x schedule.gradient_accumulation_steps x devices',
            schedule.batch_size * schedule.gradient_accumulation_steps * num_ranks,
        ),
    }
    for key, (section, value) in required.items():
        if configured.get(key, 'auto') not in ('auto', value):
            raise ConfigError(
                f"the DeepSpeed configuration has {key}={configured[key]}, but {section} is {value}; write 'auto'"
            )
        configured[key] = value
    if _enabled(configured, 'bf16') not in ('auto', bf16):
        raise ConfigError(
            f'the DeepSpeed configuration has bf16.enabled={_enabled(configured, "bf16")}, but this run needs {bf16} '
            "(bf16 weights are for full fine-tuning on GPUs; an adapter stays in float32); write 'auto'"
        )
    zero = configured.setdefault('zero_optimization', {})
    stage = traits_of(name).zero_stage
    if zero.setdefault('stage', stage) != stage:
        raise ConfigError(f'the DeepSpeed configuration has stage {zero["stage"]}, but the strategy is {name}')
    _offload(zero, name)
    configured |= dict(fp16=dict(enabled=False), bf16=dict(enabled=bf16))
    return _without_auto(dict(zero_allow_untested_optimizer=True, zero_force_ds_cpu_optimizer=False) | configured)


def _offload(zero: dict, name: str) -> None:
    """Add the offload sections of the strategy, and refuse a configuration that offloads without it."""
    offloads = [key for key in OFFLOAD if offloads_to(zero.get(key))]
    traits = traits_of(name)
    if traits.offloads and not offloads:
        for key in OFFLOAD[: 2 if traits.shards_weights else 1]:
            zero[key] = dict(device='cpu')
    elif offloads and not traits.offloads:
        raise ConfigError(
            f'the DeepSpeed configuration has {offloads[0]}, but the strategy is {name}; call it {name}_offload'
        )


def offloads_to(section: dict | None) -> bool:
    """Return whether DeepSpeed's `section` offloads."""
    return bool(section) and section.get('device', 'none') != 'none'


def _enabled(configured: dict, key: str) -> Any:
    section = configured.get(key)
    return section.get('enabled', 'auto') if isinstance(section, dict) else 'auto'


def _without_auto(values: dict) -> dict:
    """Drop values that are still 'auto': DeepSpeed has defaults for them."""
    return {k: _without_auto(v) if isinstance(v, dict) else v for k, v in values.items() if v != 'auto'}
