"""Which method goes with which strategy: the table that configs are checked against and the docs print."""

from ..config.wire import Job
from ..errors import ConfigError, did_you_mean
from ..ops.float8_linear import Float8Config

SPREAD = ('zero3', 'zero3_offload', 'fsdp2', 'fsdp2_offload')  # weights are sliced too
STRATEGIES = ('one_device', 'ddp', 'zero1', 'zero2', 'zero2_offload', *SPREAD)
METHODS = ('full', 'lora', 'qlora', 'int8_lora', 'fp8_lora', 'other_quantised')
_NO_SLICES = 'DeepSpeed cannot slice quantised weights'
# (method, strategy) -> why it does not go, and what to take.
REFUSED: dict[tuple[str, str], str] = (
    {
        ('qlora', 'zero3'): f'{_NO_SLICES}; take fsdp2, which slices NF4, or zero2, where each device holds the base',
        ('qlora', 'zero3_offload'): f'{_NO_SLICES}; take fsdp2_offload, or zero2_offload',
        ('int8_lora', 'zero3'): f'{_NO_SLICES}; take zero2, or a qlora preset with fsdp2',
        ('int8_lora', 'zero3_offload'): f'{_NO_SLICES}; take zero2_offload, or a qlora preset with fsdp2_offload',
        ('int8_lora', 'fsdp2'): 'int8 weights carry scales that slicing would tear off; take ddp, or a qlora preset',
        (
            'int8_lora',
            'fsdp2_offload',
        ): 'int8 weights carry scales that slicing would tear off; take ddp, or a qlora preset',
    }
    | {
        ('other_quantised', strategy): 'only NF4 weights of bitsandbytes can be sliced; take ddp or zero2'
        for strategy in SPREAD
    }
    | {
        ('fp8_lora', strategy): 'each device holds the weights in float8 whole; take ddp, or a qlora preset with fsdp2'
        for strategy in STRATEGIES
        if strategy not in ('one_device', 'ddp')
    }
)


def method_of(lora: bool, quantization: dict | None) -> str:
    """Return the row of the table for a run with an adapter or without, and its section `quantization`."""
    if quantization is None:
        return 'lora' if lora else 'full'
    if quantization.get('type') is Float8Config:
        return 'fp8_lora'
    if quantization.get('load_in_4bit'):
        return 'qlora'
    return 'int8_lora' if quantization.get('load_in_8bit') else 'other_quantised'


def method_of_run(job: Job) -> str:
    """Return the row of the table for `job`."""
    quantization = job.quantization
    return method_of(job.lora is not None, quantization and dict(quantization.keywords, type=quantization.func))


def check(method: str, strategy: str, devices: int) -> None:
    """Refuse what cannot work.

    Raises:
        ConfigError: The strategy is unknown, the method does not go with it, or it needs more devices.
    """
    if strategy not in STRATEGIES:
        close = did_you_mean(strategy, STRATEGIES)
        raise ConfigError(f'strategy.name={strategy!r} is none of {", ".join(STRATEGIES)}{close}')
    reason = REFUSED.get((method, strategy))
    if reason and devices > 1:
        raise ConfigError(f'{method} does not go with strategy {strategy}: {reason}')
    if devices == 1 and strategy.endswith('_offload'):
        raise ConfigError(
            f'strategy {strategy} on one device: offload is for several (NPROC_PER_NODE=2 xtune train ...); on one '
            'take a qlora preset, or leave the strategy away'
        )
