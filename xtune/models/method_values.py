"""Values in the sections `optimizer` and `quantization`, before data are prepared.

The libraries check some of them, and say so only when the model is loaded, or in a kernel.
"""

from collections.abc import Iterator
from functools import partial

import torch
from transformers import BitsAndBytesConfig

from ..errors import ConfigError
from .ranges import Check, number, out_of_range, refuse

_BETA = number(0, 1, below=True)
_OPTIMIZER: dict[str, Check] = {
    'lr': number(0),
    'weight_decay': number(0),
    'momentum': number(0, 1, below=True),
    'betas': (
        lambda value: isinstance(value, (list, tuple)) and len(value) > 1 and all(map(_BETA[0], value)),
        f'two numbers, each {_BETA[1].removeprefix("a number ")}',
    ),
}
_QUANTIZATION: dict[str, Check] = {
    'bnb_4bit_quant_type': (lambda value: value in ('nf4', 'fp4'), "'nf4' or 'fp4'"),
    'bnb_4bit_use_double_quant': (lambda value: isinstance(value, bool), 'True or False'),
    'load_in_4bit': (lambda value: isinstance(value, bool), 'True or False'),
    'load_in_8bit': (lambda value: isinstance(value, bool), 'True or False'),
    'llm_int8_threshold': number(0),
}


def check_optimizer(optimizer: partial) -> None:
    """Refuse arguments of an optimizer that are out of range.

    Args:
        optimizer: The class with the arguments of section `optimizer`.

    Raises:
        ConfigError: Some are. The message lists them all.
    """
    refuse([*out_of_range('optimizer', optimizer.keywords, _OPTIMIZER)])
    if not getattr(optimizer.func, '__module__', '').startswith('torch.optim'):
        return  # others may compile something when they are built
    try:
        optimizer([torch.nn.Parameter(torch.zeros(2, 2))])
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f'optimizer {optimizer.func.__name__} refuses its arguments: {error}') from error


def check_quantization(quantization: partial | None) -> None:
    """Refuse values of section `quantization` that are out of range, or that quantise nothing.

    Raises:
        ConfigError: There are some. The message lists them all.
    """
    if quantization is None or quantization.func is not BitsAndBytesConfig:
        return
    given = quantization.keywords
    problems = [*out_of_range('quantization', given, _QUANTIZATION)]
    if not given.get('load_in_4bit') and not given.get('load_in_8bit'):
        problems.append('the section `quantization` quantises nothing: set load_in_4bit or load_in_8bit to True')
    if given.get('llm_int8_enable_fp32_cpu_offload'):
        problems.append('quantization.llm_int8_enable_fp32_cpu_offload has no effect: each model is on one device')
    refuse(problems)
    try:
        quantization()
    except (TypeError, ValueError, AttributeError, ImportError) as error:
        raise ConfigError(f'the section `quantization` is refused: {error}') from error


def quantization_notes(quantization: partial | None) -> Iterator[str]:
    """Yield which values of section `quantization` have no effect beside the others."""
    if quantization is None or quantization.func is not BitsAndBytesConfig:
        return
    given = quantization.keywords
    for key in given:
        if given.get('load_in_4bit') and key in ('llm_int8_threshold', 'llm_int8_has_fp16_weight'):
            yield f'quantization.{key} has no effect with load_in_4bit=True'
        if given.get('load_in_8bit') and key.startswith('bnb_4bit_'):
            yield f'quantization.{key} has no effect with load_in_8bit=True'
