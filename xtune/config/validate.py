"""Check a config against the schema and report all errors at once."""

import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from functools import lru_cache
from typing import Any

from ..errors import did_you_mean
from .migration import DATASET_KEYS, SECTION_NAMES, instead_of
from .sections import REMOVED, SCALARS, SECTIONS, TYPED, Scalars, Source


def problems(values: dict) -> Iterator[str]:
    """Yield one sentence for each error in `values` (section name -> plain value); imports nothing."""
    for name in values:
        if name in REMOVED:
            yield f'`{name}`: {REMOVED[name]}'
        elif name not in SECTIONS:
            yield f'`{name}` is not a section{instead_of(name, SECTION_NAMES) or did_you_mean(name, SECTIONS)}'
    for name, section in SECTIONS.items():
        required = SCALARS[name].default is MISSING if name in SCALARS else not section.optional
        if name not in values:
            if required:
                yield f'section `{name}` is missing'
        elif name in SCALARS:
            yield from _value_problems(name, values[name], SCALARS[name], _hints(Scalars))
        else:
            yield from _section_problems(name, values[name])


def _section_problems(name: str, value: Any) -> Iterator[str]:
    section = SECTIONS[name]
    if value is None and section.nullable:
        return
    if name == 'val_dataset' and isinstance(value, (int, float)) and not isinstance(value, bool):
        if value <= 0 or (value > 1 and value != int(value)):
            yield f'`val_dataset` as a number is a share between 0 and 1 or a count of rows, got {value!r}'
        return
    if name == 'custom_imports':
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
            yield f'`custom_imports` is a list of module names, got {value!r}'
        return
    if name == 'runner' and isinstance(value, dict) and value.get('load_from') is not None:
        yield (
            '`runner.load_from` would have no effect; to start from the weights of another run, set '
            f'load_from={value["load_from"]!r} beside `runner`'
        )
    if section.keys is Source:
        yield from _source_problems(name, value)
    elif not isinstance(value, dict):
        yield f'`{name}` must be a dict, got {_show(value)}'
    elif section.keys is not None:
        yield from _key_problems(name, value, section.keys)
        if name == 'chat_samples' and value.get('prompts') and 'every_steps' not in value:
            yield '`chat_samples.prompts` are never answered: set chat_samples.every_steps (None: on purpose)'
    elif name in TYPED and 'type' not in value:
        yield f'`{name}` has no `type` that its keys {list(value)} could be arguments of'


def _source_problems(name: str, value: Any) -> Iterator[str]:
    in_list = isinstance(value, (list, tuple))
    sources = value if in_list else [value]
    if not sources:
        yield f'`{name}` is an empty list; give at least one data set'
    for index, source in enumerate(sources):
        path = f'{name}.{index}' if in_list else name
        if isinstance(source, dict):
            yield from _key_problems(path, source, Source)
        else:
            yield f'`{path}` must be a dict, got {_show(source)}'
    weights = [source.get('weight') for source in sources if isinstance(source, dict)]
    if name == 'val_dataset' and any(weights):
        yield '`val_dataset`: a weight has no effect, as validation uses every sample once; leave it out'
    elif None in weights and any(weights):
        yield f'`{name}`: {weights.count(None)} of {len(weights)} data sets have no weight; give one to all or to none'
    elif math.inf in weights:
        yield f'`{name}`: a weight is infinite; give the shares as numbers such as 3 and 1'


def _key_problems(name: str, value: dict, table: type) -> Iterator[str]:
    known = {f.name: f for f in fields(table)}
    hints = _hints(table)
    for key, item in value.items():
        if key not in known:
            names = DATASET_KEYS if table is Source else {}
            yield f'`{name}.{key}` is not an option{instead_of(key, names) or did_you_mean(key, known)}'
        else:
            yield from _value_problems(f'{name}.{key}', item, known[key], hints)
    for key, declared in known.items():
        if key not in value and declared.default is MISSING:
            yield f'`{name}.{key}` is missing: {declared.metadata["doc"]}'


def _value_problems(path: str, value: Any, declared: Any, hints: dict) -> Iterator[str]:
    wanted = hints[declared.name]
    if not fits(value, wanted):
        yield f'`{path}` must be {spell(wanted)}, got {_show(value)}'
        return
    limits = declared.metadata
    if limits.get('filled') and value is not None and not value.strip():
        yield f'`{path}` is empty: {limits["doc"]}'
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    if value != value:
        yield f'`{path}` must be {spell(wanted)}, got {value!r}'
    if 'low' in limits and value < limits['low']:
        yield f'`{path}` must be at least {limits["low"]}, got {value!r}'
    if 'above' in limits and value <= limits['above']:
        yield f'`{path}` must be above {limits["above"]}, got {value!r}'
    if 'high' in limits and value > limits['high']:
        yield f'`{path}` must be at most {limits["high"]}, got {value!r}'


def fits(value: Any, wanted: Any) -> bool:
    """Return whether `value` is of the annotated type: an int passes as float, a bool never as a number."""
    if wanted is Any:
        return True
    origin = typing.get_origin(wanted)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in typing.get_args(wanted))
    if origin is typing.Literal:
        return any(type(value) is type(option) and value == option for option in typing.get_args(wanted))
    if wanted in (int, float):
        return isinstance(value, (int, wanted)) and not isinstance(value, bool)
    if wanted is list:
        return isinstance(value, (list, tuple))
    return isinstance(value, wanted)


def texts(path: str) -> set[str]:
    """Return the words that the option `path`, such as schedule.lr_schedule, may be set to; empty: it is no choice."""
    section, dot, key = path.rpartition('.')
    declared = SECTIONS.get(section) if dot else None
    table = Scalars if not dot else declared and declared.keys
    wanted = _hints(table).get(key) if table else None
    options = [wanted, *typing.get_args(wanted)]
    words = [word for one in options if typing.get_origin(one) is typing.Literal for word in typing.get_args(one)]
    return {word for word in words if isinstance(word, str)}


def spell(wanted: Any) -> str:
    """Return an annotation in words, such as `an int or None`."""
    origin = typing.get_origin(wanted)
    if origin in (typing.Union, types.UnionType):
        return ' or '.join(spell(option) for option in typing.get_args(wanted))
    if origin is typing.Literal:
        return 'one of ' + ', '.join(repr(option) for option in typing.get_args(wanted))
    words = {int: 'an int', float: 'a number', str: 'a string', bool: 'True or False', type(None): 'None'}
    return words.get(wanted, 'anything' if wanted is Any else f'a {wanted.__name__}')


def argument_problems(name: str, target: Callable, arguments: dict) -> Iterator[str]:
    """Yield the keys of section `name` that the callable `target` does not take."""
    if not callable(target):
        yield f'`{name}.type` must be a callable or its dotted name, got {_show(target)}'
        return
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:  # written in C without a signature: calling it is the only check
        return
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if takes_any and not (SECTIONS[name].strict and known):
        return
    for key in arguments:
        if key not in known:
            label = getattr(target, '__qualname__', str(target))
            yield f'`{name}.{key}` is not an argument of {label}{did_you_mean(key, known)}'


@lru_cache
def _hints(table: type) -> dict:
    return typing.get_type_hints(table)


def _show(value: Any) -> str:
    # The command line does not evaluate calls.
    hint = '; on the command line a dict is JSON: {"key": "value"}' if str(value).startswith('dict(') else ''
    return f'{value!r} ({type(value).__name__}){hint}'
