"""Check the values of the sections `optimizer` and `quantization` before data are prepared.

The libraries check some of them, but only when the model is loaded, or in a kernel.
"""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from ..errors import did_you_mean
from .annotations import type_errors
from .ranges import Check, flag, number, numbers, out_of_range

_SHARE = number(0, 1, below=True)
_POSITIVE = number(0, above=True)
_OPTIMIZER: dict[str, Check] = {
    'lr': number(0),
    'weight_decay': number(0),
    'momentum': _SHARE,
    'rho': number(0, 1),
    # With 0, a weight whose gradients are all 0 (the A of a fresh adapter) becomes 0 / 0.
    'eps': _POSITIVE,
}
_COMPUTE_TYPES = ('bfloat16', 'float16', 'float32')
_STORAGE_TYPES = ('uint8', 'int8', 'float16', 'float32', 'bfloat16', 'float64')
_QUANTIZATION: dict[str, Check] = {
    'bnb_4bit_quant_type': (lambda value: value in ('nf4', 'fp4'), "'nf4' or 'fp4'"),
    'bnb_4bit_use_double_quant': flag(),
    'load_in_4bit': flag(),
    'load_in_8bit': flag(),
    'llm_int8_has_fp16_weight': flag(),
    'llm_int8_threshold': number(0),
    'llm_int8_skip_modules': (
        lambda value: value is None or (isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)),
        'a list of module names',
    ),
}


def optimizer_problems(optimizer: partial, build: bool = True) -> Iterator[str]:
    """Yield arguments of an optimizer that it cannot take, or that are out of range.

    Args:
        optimizer: The class with the arguments of section `optimizer`.
        build: Whether to instantiate it, if there is no other error.
    """
    if 'params' in optimizer.keywords:
        yield '`optimizer.params` is not an option: the optimizer gets the trained weights; leave it out'
        return
    checks = _optimizer_checks(optimizer.func)
    problems = [*out_of_range('optimizer', optimizer.keywords, checks)]
    problems += type_errors('optimizer', optimizer.func, optimizer.keywords, checks)
    yield from problems
    # Others may compile something when they are instantiated.
    if problems or not build or not getattr(optimizer.func, '__module__', '').startswith('torch.optim'):
        return
    try:
        optimizer([torch.nn.Parameter(torch.zeros(2, 2))])
    except (TypeError, ValueError, RuntimeError) as error:
        yield f'optimizer {optimizer.func.__name__} refuses its arguments: {error}'


def _optimizer_checks(kind: Callable) -> dict[str, Check]:
    """Return the checks for arguments of `kind`: betas and eps have as many numbers as its default."""
    checks = dict(_OPTIMIZER)
    try:
        parameters = inspect.signature(kind).parameters
    except (ValueError, TypeError):
        parameters = {}
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    betas = defaults.get('betas')
    checks['betas'] = numbers(len(betas) if isinstance(betas, tuple) else 2, _SHARE)
    if isinstance(defaults.get('eps'), tuple):  # Adafactor's; None leaves one to it
        count = len(defaults['eps'])
        checks['eps'] = numbers(count, (lambda value: value is None or _POSITIVE[0](value), 'a number above 0 or None'))
    return checks


def quantization_problems(quantization: partial, build: bool = True) -> Iterator[str]:
    """Yield values of section `quantization` that are out of range, or that quantize nothing.

    Args:
        quantization: The class with the arguments of section `quantization`.
        build: Whether to instantiate it, if there is no other error.
    """
    given = quantization.keywords
    if quantization.func is not BitsAndBytesConfig:
        yield from type_errors('quantization', quantization.func, given)
        return
    problems = [*out_of_range('quantization', given, _QUANTIZATION)]
    problems += _dtype_problems(given)
    problems += type_errors('quantization', quantization.func, given, _QUANTIZATION)
    # A value that is not a bool is reported above.
    if all(given.get(key, False) is False for key in ('load_in_4bit', 'load_in_8bit')):
        problems.append('section `quantization` quantizes nothing: set load_in_4bit or load_in_8bit to True')
    if given.get('llm_int8_enable_fp32_cpu_offload'):
        problems.append('`quantization.llm_int8_enable_fp32_cpu_offload` has no effect: each rank has one device')
    yield from problems
    if build and not problems:
        try:
            quantization()
        except (TypeError, ValueError, AttributeError, ImportError) as error:
            yield f'the section `quantization` is refused: {error}'


def _dtype_problems(given: dict[str, Any]) -> Iterator[str]:
    known = {'bnb_4bit_compute_dtype': _COMPUTE_TYPES, 'bnb_4bit_quant_storage': _STORAGE_TYPES}
    for key, names in known.items():
        value = given.get(key)
        name = str(value).removeprefix('torch.') if isinstance(value, torch.dtype) else value
        if value is not None and name not in names:
            spelled = ', '.join(map(repr, names))
            yield f'`quantization.{key}` must be one of {spelled}, got {value!r}{did_you_mean(name, names)}'


def quantization_notes(quantization: partial | None) -> Iterator[str]:
    """Yield the values of section `quantization` that have no effect with the others."""
    if quantization is None or quantization.func is not BitsAndBytesConfig:
        return
    given = quantization.keywords
    for key in given:
        if given.get('load_in_4bit') and key in ('llm_int8_threshold', 'llm_int8_has_fp16_weight'):
            yield f'quantization.{key} has no effect with load_in_4bit=True'
        if given.get('load_in_8bit') and key.startswith('bnb_4bit_'):
            yield f'quantization.{key} has no effect with load_in_8bit=True'
