"""Values in section `lora`, before data are prepared: ranges, words, and settings without effect.

peft checks some of them, when the model is loaded.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, get_args, get_type_hints

from peft import AdaLoraConfig

from ..config.validate import spell
from ..errors import ConfigError, did_you_mean
from .ranges import Check, number, out_of_range, refuse, whole_number

_ADAPTER: dict[str, Check] = {
    'r': whole_number(1),
    'lora_alpha': number(0, above=True),
    'lora_dropout': number(0, 1, below=True),
}
# Starts of an adapter that peft expects to be prepared by a pass over data; without it they are the default start.
_PREPARED = ('eva', 'corda', 'lora_ga')
# Settings of one start of an adapter, which the others ignore.
_OF_START = {'loftq_config': 'loftq', 'eva_config': 'eva', 'corda_config': 'corda', 'lora_ga_config': 'lora_ga'}


def check_lora(lora: partial | None) -> None:
    """Refuse values of section `lora` that are out of range, or that have no effect.

    Raises:
        ConfigError: There are some. The message lists them all.
    """
    if lora is None:
        return
    given = lora.keywords
    problems = [*out_of_range('lora', given, _ADAPTER), *_choices(lora.func, given)]
    for field, each in (('rank_pattern', _ADAPTER['r']), ('alpha_pattern', _ADAPTER['lora_alpha'])):
        values = given.get(field) or {}
        if isinstance(values, dict):
            problems += out_of_range(f'lora.{field}', values, dict.fromkeys(values, each))
        else:
            problems.append(f'lora.{field} must be a dict of names and numbers, got {values!r}')
    problems += _starts(given)
    if given.get('inference_mode'):
        problems.append('lora.inference_mode=True freezes the adapter, so that nothing is trained: leave it out')
    if given.get('task_type') not in (None, 'CAUSAL_LM'):
        problems.append(f"lora.task_type must be 'CAUSAL_LM', got {given['task_type']!r}")
    if isinstance(lora.func, type) and issubclass(lora.func, AdaLoraConfig):
        problems.append('lora.type=AdaLoraConfig: a run does not distribute its ranks anew; take LoraConfig')
    refuse(problems)
    try:
        lora()
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(f'the section `lora` is refused: {error}') from error


def _choices(kind: Callable, given: dict[str, Any]) -> Iterator[str]:
    """Yield values that are none of the words which the config class allows for their key."""
    try:
        hints = get_type_hints(kind)
    except (NameError, TypeError):  # of a class that is written otherwise
        return
    for key, value in given.items():
        options = get_args(hints.get(key))
        words = [word for word in options if isinstance(word, str)]
        if words and len(words) == len(options) and value not in options:
            yield f'lora.{key} must be {spell(hints[key])}, got {value!r}{did_you_mean(value, words)}'
        nested = [word for option in options for word in get_args(option) if isinstance(word, str)]
        if nested and bool in options and isinstance(value, str) and not _is_start(value, nested):
            known = ', '.join(map(repr, nested))
            yield f'lora.{key} must be True, False or one of {known}, got {value!r}{did_you_mean(value, nested)}'


def _is_start(value: str, known: list[str]) -> bool:
    count = value.removeprefix('pissa_niter_')
    return value.lower() in known or (count != value and count.isdecimal())


def _starts(given: dict[str, Any]) -> Iterator[str]:
    start = given.get('init_lora_weights', True)
    if start in _PREPARED:
        yield (
            f'lora.init_lora_weights={start!r} needs a pass over data before training, which xtune does not do; '
            'without it the start is the default one: leave it out'
        )
    for key, wanted in _OF_START.items():
        if given.get(key) and start != wanted:
            yield f'lora.{key} has no effect with lora.init_lora_weights={start!r}, only with {wanted!r}'
