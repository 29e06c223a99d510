"""Which training method works with which strategy: the table that configs are checked against and the docs show."""

from ..config.specs import ModelSpec
from ..config.strategy_traits import TRAITS
from ..errors import ConfigError, did_you_mean
from ..ops.float8_linear import Float8Config

STRATEGIES = tuple(TRAITS)
SHARDED_WEIGHTS = tuple(name for name, traits in TRAITS.items() if traits.shards_weights)
METHODS = ('full', 'lora', 'qlora', 'int8_lora', 'fp8_lora', 'other_quantized')
_NO_ZERO3 = 'DeepSpeed cannot shard quantized weights'
_NO_INT8_SHARDS = 'int8 weights have scales that sharding would separate from them; use ddp, or a qlora preset'
# (method, strategy) -> the reason why they do not work together, and what to use.
REFUSED: dict[tuple[str, str], str] = (
    {
        ('qlora', 'zero3'): f'{_NO_ZERO3}; use fsdp2, which shards NF4, or zero2, where each device has the full base',
        ('qlora', 'zero3_offload'): f'{_NO_ZERO3}; use fsdp2_offload, or zero2_offload',
        ('int8_lora', 'zero3'): f'{_NO_ZERO3}; use zero2, or a qlora preset with fsdp2',
        ('int8_lora', 'zero3_offload'): f'{_NO_ZERO3}; use zero2_offload, or a qlora preset with fsdp2_offload',
        ('int8_lora', 'fsdp2'): _NO_INT8_SHARDS,
        ('int8_lora', 'fsdp2_offload'): _NO_INT8_SHARDS,
    }
    | {
        ('other_quantized', strategy): 'only NF4 weights of bitsandbytes can be sharded; use ddp or zero2'
        for strategy in SHARDED_WEIGHTS
    }
    | {
        ('fp8_lora', strategy): 'each device needs all float8 weights; use ddp, or a qlora preset with fsdp2'
        for strategy in STRATEGIES
        if not TRAITS[strategy].is_replicated
    }
)


def method_of(lora: bool, quantization: dict | None) -> str:
    """Return the method of a run from whether it has an adapter, and from its section `quantization`."""
    if quantization is None:
        return 'lora' if lora else 'full'
    if quantization.get('type') is Float8Config:
        return 'fp8_lora'
    if quantization.get('load_in_4bit'):
        return 'qlora'
    return 'int8_lora' if quantization.get('load_in_8bit') else 'other_quantized'


def method_of_model(spec: ModelSpec) -> str:
    """Return the method by which a model is trained."""
    quantization = spec.quantization
    return method_of(spec.lora is not None, quantization and dict(quantization.keywords, type=quantization.func))


def check(method: str, strategy: str, devices: int) -> None:
    """Refuse a method and a strategy that do not work together.

    Raises:
        ConfigError: The strategy is unknown, does not support the method, or needs more devices.
    """
    if strategy not in STRATEGIES:
        close = did_you_mean(strategy, STRATEGIES)
        raise ConfigError(f'strategy.name={strategy!r} is not one of {", ".join(STRATEGIES)}{close}')
    reason = REFUSED.get((method, strategy))
    if reason and devices > 1:
        raise ConfigError(f'{method} does not work with strategy {strategy}: {reason}')
    if devices == 1 and TRAITS[strategy].offloads:
        raise ConfigError(
            f'strategy {strategy} on one device: offload needs several (NPROC_PER_NODE=2 xtune train ...); on one, use '
            'a qlora preset, or omit the strategy'
        )
