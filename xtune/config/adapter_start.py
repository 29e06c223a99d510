"""Check lora.init_lora_weights, the initialization of the adapter, before data are prepared."""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from peft import LoraConfig

from ..errors import ConfigError, did_you_mean

# Initializations that leave the base unchanged and need nothing else.
_PLAIN = ('gaussian', 'orthogonal', 'mica')
_RESIDUAL = ('pissa', 'pissa_niter_16', 'olora')
_PISSA = re.compile(r'pissa(_niter_\d+)?')
_INSTEAD = f'Set one of {", ".join(map(repr, (True, *_PLAIN, *_RESIDUAL)))}'
_IMPOSSIBLE = {
    'loftq': 'it replaces the base weights by quantized ones, which no adapter on the original base can restore; '
    'for a 4-bit base use a qlora preset',
    'corda': 'it needs a pass over data before the adapter exists (preprocess_corda of peft), which xtune does not do',
    'eva': 'it needs a pass over data once the adapter exists (initialize_lora_eva_weights of peft), which xtune does '
    'not do; without it the initialization is the default one',
    'lora_ga': 'it needs gradients of the base before the adapter exists (preprocess_loraga of peft), which xtune '
    'does not compute; without them the initialization is the default one',
}


def changes_base(start: Any) -> bool:
    """Return whether the value `start` of lora.init_lora_weights moves a part of the base weights into the adapter."""
    return isinstance(start, str) and (start == 'olora' or _PISSA.fullmatch(start) is not None)


def start_problems(lora: partial, quantized: bool) -> Iterator[str]:
    """Yield why the value of lora.init_lora_weights cannot be trained or exported as intended.

    Args:
        lora: The class with the arguments of section `lora`.
        quantized: Whether the section `quantization` quantizes the base.
    """
    if not (isinstance(lora.func, type) and issubclass(lora.func, LoraConfig)):
        return
    start = lora.keywords.get('init_lora_weights', True)
    option = f'`lora.init_lora_weights`={start!r}'
    if isinstance(start, bool) or (isinstance(start, str) and start in _PLAIN):
        return
    if isinstance(start, str) and start in _IMPOSSIBLE:
        yield f'{option}: {_IMPOSSIBLE[start]}. {_INSTEAD}'
    elif not changes_base(start):
        close = did_you_mean(start, [*_PLAIN, *_RESIDUAL, *_IMPOSSIBLE]) if isinstance(start, str) else ''
        yield f'{option} is not supported{close or "."} {_INSTEAD}'
    elif lora.func is not LoraConfig:
        yield f'{option} is an initialization of LoraConfig, and lora.type is {lora.func.__name__}. {_INSTEAD}'
    elif quantized:
        yield str(refused_on_quantized(start, 'the section `quantization`'))
    elif lora.keywords.get('target_parameters'):
        yield (
            f'{option} initializes the adapter from the weights of linear layers, and lora.target_parameters names '
            'other tensors: set lora.target_parameters=None, or lora.init_lora_weights=True'
        )


def refused_on_quantized(start: Any, origin: str) -> ConfigError:
    """Return the error about an initialization that changes base weights which `origin` quantizes."""
    return ConfigError(
        f'lora.init_lora_weights={start!r} initializes the adapter from the base weights, and {origin} quantizes '
        'these: set lora.init_lora_weights=True, or use a base that is not quantized (quantization=None)'
    )
