"""Check section `lora` before data are prepared: types, ranges, choices and options without effect.

peft checks some of them, but only when the model is loaded.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, get_args, get_type_hints

from peft import AdaLoraConfig

from ..errors import did_you_mean
from .adapter_start import start_problems
from .annotations import type_errors
from .ranges import Check, number, out_of_range, whole_number
from .validate import spell

_ADAPTER: dict[str, Check] = {
    'r': whole_number(1),
    'lora_alpha': number(0, above=True),
    'lora_dropout': number(0, 1, below=True),
}
_PATTERNS = {'rank_pattern': _ADAPTER['r'], 'alpha_pattern': _ADAPTER['lora_alpha']}
# Options of one initialization, which the others ignore.
_OF_INITIALIZATION = {
    'loftq_config': 'loftq',
    'eva_config': 'eva',
    'corda_config': 'corda',
    'lora_ga_config': 'lora_ga',
}


def lora_problems(lora: partial, quantized: bool = False, build: bool = True) -> Iterator[str]:
    """Yield values of section `lora` that its class cannot take, that are out of range, or that have no effect.

    Args:
        lora: The class with the arguments of section `lora`.
        quantized: Whether the section `quantization` quantizes the base.
        build: Whether to instantiate it, if there is no other error.
    """
    given = lora.keywords
    starts = list(start_problems(lora, quantized))
    words = {} if not isinstance(lora.func, type) else dict(_choices(lora.func, given, not starts))
    problems = [*out_of_range('lora', given, _ADAPTER), *words.values(), *starts]
    checked = (*_ADAPTER, *_PATTERNS, *words, 'init_lora_weights', 'task_type')
    problems += type_errors('lora', lora.func, given, checked)
    for field, each in _PATTERNS.items():
        values = given.get(field) or {}
        if isinstance(values, dict):
            problems += out_of_range(f'lora.{field}', values, dict.fromkeys(values, each))
        else:
            problems.append(f'`lora.{field}` must be a dict of names and numbers, got {values!r}')
    problems += _without_effect(lora.func, given)
    yield from problems
    if build and not problems:
        try:
            lora()
        except (TypeError, ValueError, ImportError) as error:
            yield f'the section `lora` is refused: {error}'


def _choices(kind: type, given: dict[str, Any], initialization_too: bool) -> Iterator[tuple[str, str]]:
    """Yield (key, error) for values that are not among the words which the config class allows."""
    try:
        hints = get_type_hints(kind)
    except (NameError, TypeError):  # a class of another form
        return
    for key, value in given.items():
        options = get_args(hints.get(key))
        words = [word for word in options if isinstance(word, str)]
        if words and len(words) == len(options) and value not in options:
            yield key, f'`lora.{key}` must be {spell(hints[key])}, got {value!r}{did_you_mean(value, words)}'
        nested = [word for option in options for word in get_args(option) if isinstance(word, str)]
        if (
            nested
            and initialization_too
            and bool in options
            and isinstance(value, str)
            and not _is_initialization(value, nested)
        ):
            known = ', '.join(map(repr, nested))
            yield key, f'`lora.{key}` must be True, False or one of {known}, got {value!r}{did_you_mean(value, nested)}'


def _is_initialization(value: str, known: list[str]) -> bool:
    count = value.removeprefix('pissa_niter_')
    return value.lower() in known or (count != value and count.isdecimal())


def _without_effect(kind: Callable, given: dict[str, Any]) -> Iterator[str]:
    start = given.get('init_lora_weights', True)
    for key, wanted in _OF_INITIALIZATION.items():
        if given.get(key) and start != wanted:
            yield f'`lora.{key}` has no effect with lora.init_lora_weights={start!r}, only with {wanted!r}'
    if given.get('inference_mode'):
        yield '`lora.inference_mode`=True freezes the adapter, so nothing would be trained: leave it out'
    if given.get('task_type') not in (None, 'CAUSAL_LM'):
        yield f"`lora.task_type` must be 'CAUSAL_LM', got {given['task_type']!r}"
    if isinstance(kind, type) and issubclass(kind, AdaLoraConfig):
        yield '`lora.type`=AdaLoraConfig: xtune does not reallocate its ranks during training; use LoraConfig'
