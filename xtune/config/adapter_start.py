"""What a section `lora` asks of the start of its adapter: said before data are prepared."""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from peft import LoraConfig

from ..errors import ConfigError, did_you_mean

# Starts that leave the base alone and need nothing else.
_PLAIN = ('gaussian', 'orthogonal', 'mica')
_RESIDUAL = ('pissa', 'pissa_niter_16', 'olora')
_PISSA = re.compile(r'pissa(_niter_\d+)?')
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


def changes_base(start: Any) -> bool:
    """Tell whether the value `start` of lora.init_lora_weights takes a part of the weights out of the base."""
    return isinstance(start, str) and (start == 'olora' or _PISSA.fullmatch(start) is not None)


def start_problems(lora: partial, quantised: bool) -> Iterator[str]:
    """Yield what keeps the value of lora.init_lora_weights from being trained or exported as it is meant.

    Args:
        lora: The class with the arguments of section `lora`.
        quantised: Whether the section `quantization` quantises the base.
    """
    if not (isinstance(lora.func, type) and issubclass(lora.func, LoraConfig)):
        return
    start = lora.keywords.get('init_lora_weights', True)
    said = f'`lora.init_lora_weights`={start!r}'
    if isinstance(start, bool) or (isinstance(start, str) and start in _PLAIN):
        return
    if isinstance(start, str) and start in _IMPOSSIBLE:
        yield f'{said}: {_IMPOSSIBLE[start]}. {_INSTEAD}'
    elif not changes_base(start):
        close = did_you_mean(start, [*_PLAIN, *_RESIDUAL, *_IMPOSSIBLE]) if isinstance(start, str) else ''
        yield f'{said} is no start that xtune knows{close or "."} {_INSTEAD}'
    elif lora.func is not LoraConfig:
        yield f'{said} is a start of LoraConfig, and lora.type is {lora.func.__name__}. {_INSTEAD}'
    elif quantised:
        yield str(refused_on_quantised(start, 'the section `quantization`'))
    elif lora.keywords.get('target_parameters'):
        yield (
            f'{said} takes the start of the adapter out of linear layers, and lora.target_parameters names other '
            'tensors: set lora.target_parameters=None, or lora.init_lora_weights=True'
        )


def refused_on_quantised(start: Any, origin: str) -> ConfigError:
    """Return the error of a start that changes the base's weights where these are rounded, as `origin` says."""
    return ConfigError(
        f'lora.init_lora_weights={start!r} takes the start of the adapter out of the weights of the base, and {origin} '
        'rounds these: set lora.init_lora_weights=True, or take a base that is not quantised (quantization=None)'
    )
