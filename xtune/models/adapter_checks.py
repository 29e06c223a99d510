"""What a section `lora` asks of the start of its adapter: said before data are prepared."""

from typing import Any

from peft import LoraConfig

from ..config.wire import Job
from ..errors import ConfigError, did_you_mean
from .residual_init import changes_base

# Starts that leave the base alone and need nothing else.
_PLAIN = ('gaussian', 'orthogonal', 'mica')
_RESIDUAL = ('pissa', 'pissa_niter_16', 'olora')
_INSTEAD = f'Set one of {", ".join(map(repr, (True, *_PLAIN, *_RESIDUAL)))}'
_IMPOSSIBLE = {
    'loftq': 'it replaces the weights of the base by rounded ones, which no adapter on the original base can restore; '
    'for a base in 4 bits take a qlora preset',
    'corda': 'it needs a pass over data before the adapter is made (preprocess_corda of peft), which xtune does not do',
    'eva': 'it needs a pass over data once the adapter is made (initialize_lora_eva_weights of peft), which xtune does '
    'not do; without it the start is an ordinary one',
    'lora_ga': 'it needs gradients of the base before the adapter is made (preprocess_loraga of peft), which xtune '
    'does not compute; without them the start is an ordinary one',
}


def check_start(job: Job) -> None:
    """Refuse a value of lora.init_lora_weights that cannot be trained or exported as it is meant.

    Raises:
        ConfigError: It is unknown, needs what a run does not have, or does not go with the quantisation.
    """
    if job.lora is None or not (isinstance(job.lora.func, type) and issubclass(job.lora.func, LoraConfig)):
        return
    start = job.lora.keywords.get('init_lora_weights', True)
    said = f'lora.init_lora_weights={start!r}'
    if isinstance(start, bool) or start in _PLAIN:
        return
    if start in _IMPOSSIBLE:
        raise ConfigError(f'{said}: {_IMPOSSIBLE[start]}. {_INSTEAD}')
    if not changes_base(start):
        close = did_you_mean(start, [*_PLAIN, *_RESIDUAL, *_IMPOSSIBLE]) if isinstance(start, str) else ''
        raise ConfigError(f'{said} is no start that xtune knows{close or "."} {_INSTEAD}')
    if job.lora.func is not LoraConfig:
        raise ConfigError(f'{said} is a start of LoraConfig, and lora.type is {job.lora.func.__name__}. {_INSTEAD}')
    if job.quantization is not None:
        raise refused_on_quantised(start, 'the section `quantization`')
    if job.lora.keywords.get('target_parameters'):
        raise ConfigError(
            f'{said} takes the start of the adapter out of linear layers, and lora.target_parameters names other '
            'tensors: set lora.target_parameters=None, or lora.init_lora_weights=True'
        )


def refused_on_quantised(start: Any, origin: str) -> ConfigError:
    """Return the error of a start that changes the base's weights where these are rounded, as `origin` says."""
    return ConfigError(
        f'lora.init_lora_weights={start!r} takes the start of the adapter out of the weights of the base, and {origin} '
        'rounds these: set lora.init_lora_weights=True, or take a base that is not quantised (quantization=None)'
    )
