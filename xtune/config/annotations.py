"""Check values of a config against the annotations and defaults of the callable that takes them.

Only certain errors are reported: an annotation that this module does not know accepts any value.
"""

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterator
from typing import Any

_NUMBERS = (int, float)
_SEQUENCES = (list, tuple, set, frozenset)
_LISTS = (*_SEQUENCES, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_DICTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_WORDS = {int: 'a whole number', float: 'a number', bool: 'True or False', str: 'a string', type(None): 'None'}
_MANY = {int: 'whole numbers', float: 'numbers', str: 'strings'}


def type_errors(
    section: str, target: Callable, arguments: dict[str, Any], checked: Collection[str] = ()
) -> Iterator[str]:
    """Yield the keys of `section` whose values `target` cannot take, by its annotations and defaults.

    Args:
        section: The name of the section.
        target: The class or function.
        arguments: Its arguments.
        checked: Names of arguments that are checked elsewhere.
    """
    try:
        parameters = inspect.signature(target).parameters
    except (ValueError, TypeError):  # written in C without a signature
        return
    hints = _hints(target)
    for key, value in arguments.items():
        if key in checked or key not in parameters:
            continue
        default = parameters[key].default
        if value is None and default is None:
            continue
        if key in hints:
            if not _fits(value, hints[key]):
                yield f'`{section}.{key}` must be {_spell(hints[key])}, got {value!r}'
        elif isinstance(default, bool):
            if not isinstance(value, bool) and value is not None:
                yield f'`{section}.{key}` must be True or False, got {value!r}'
        elif type(default) in _NUMBERS and isinstance(value, (str, bool, dict, *_SEQUENCES)):
            yield f'`{section}.{key}` must be a number, got {value!r}'


def _hints(target: Callable) -> dict[str, Any]:
    # A class whose `__init__` is inherited from nobody but `object` is annotated by its fields.
    for source in (target.__init__, target) if isinstance(target, type) else (target,):
        try:
            hints = typing.get_type_hints(source)
        except Exception:  # names that only a type checker imports; foreign code may raise anything
            continue
        if hints.keys() - {'return'}:
            return hints
    return {}


def _fits(value: Any, wanted: Any) -> bool:
    """Return whether `value` may be of the annotated type: an int passes as float, a list as tuple."""
    origin = typing.get_origin(wanted)
    if origin is typing.Annotated:
        return _fits(value, typing.get_args(wanted)[0])
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(wanted))
    if origin is typing.Literal:
        return value in typing.get_args(wanted)
    plain = origin or wanted
    if plain in (bool, type(None)):
        return isinstance(value, plain)
    if plain in _NUMBERS:
        return isinstance(value, (int, plain)) and not isinstance(value, bool)
    if plain is str:
        return isinstance(value, str)
    if plain in _LISTS:
        return (plain not in _SEQUENCES and isinstance(value, (str, dict))) or _items_fit(value, wanted, plain)
    if plain in _DICTS:
        return isinstance(value, dict)
    if _is_tensor(plain):
        return not isinstance(value, (bool, int, float, str, dict, *_SEQUENCES, type(None)))
    return value is not None or plain is Any or not isinstance(plain, type)


def _items_fit(value: Any, wanted: Any, plain: type) -> bool:
    if not isinstance(value, _SEQUENCES):
        return False
    items = typing.get_args(wanted)
    if plain is tuple and items and items[-1] is not Ellipsis:
        return len(value) == len(items) and all(map(_fits, value, items))
    return not items or all(_fits(one, items[0]) for one in value)


def _is_tensor(wanted: Any) -> bool:
    return getattr(wanted, '__module__', '') == 'torch' and getattr(wanted, '__name__', '') == 'Tensor'


def _spell(wanted: Any) -> str:
    """Return an annotation in words, such as `a list of strings or None`; a config has no tensors to write."""
    origin = typing.get_origin(wanted)
    items = typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        # Sorted, because `typing` caches unions and returns the order of an equal union that was written earlier.
        words = {_spell(option) for option in items if not _is_tensor(option)}
        return ' or '.join(sorted(words, key=lambda word: (word == 'None', word)))
    if origin is typing.Annotated:
        return _spell(items[0])
    if origin is typing.Literal:
        return 'one of ' + ', '.join(map(repr, items))
    plain = origin or wanted
    if plain is tuple and items and items[-1] is not Ellipsis:
        return f'a tuple of {len(items)} values, each {" or ".join(dict.fromkeys(map(_spell, items)))}'
    if plain in _LISTS:
        return f'a list of {_MANY.get(items[0], "values")}' if items else 'a list'
    if plain in _DICTS:
        return 'a dict'
    return _WORDS.get(plain, getattr(plain, '__name__', str(plain)))
