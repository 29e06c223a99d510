"""Values a callable captures besides its source: arguments of a partial, closures, defaults, attributes of its object.

Two map functions with the same source, such as two results of one factory, differ only in these.
"""

import functools
import hashlib
import re
import types
from collections.abc import Callable, Iterator
from typing import Any

_PLAIN = (str, bytes, int, float, complex, bool, type(None))
_MAX_DEPTH = 50


def reachable_functions(function: Callable) -> Iterator[Any]:
    """Yield the functions and classes that run when `function` is called, as far as it captures them itself."""
    seen: set[int] = set()
    pending: list[Any] = [function]
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, (types.FunctionType, type)):
            yield value
        elif not isinstance(value, (*_PLAIN, list, tuple, set, frozenset, dict, types.ModuleType)):
            yield type(value)
        pending += _contents(value)


def _contents(value: Any) -> list[Any]:
    """Return the values that a callable or container refers to."""
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, types.FunctionType):
        defaults = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        return [*_closure(value), *defaults, *_attributes(value).values()]
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, type):
        return [base for base in value.__mro__[1:] if base is not object]
    if isinstance(value, (*_PLAIN, types.ModuleType)):
        return []
    return list(_attributes(value).values())  # includes the function that functools.lru_cache wraps


def _closure(function: types.FunctionType) -> list[Any]:
    values = []
    for cell in function.__closure__ or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            continue
    return values


def _attributes(value: Any) -> dict[str, Any]:
    """Return the attributes of an object, in a fixed order."""
    values = getattr(value, '__dict__', {})
    return {str(name): values[name] for name in sorted(values, key=str)} if isinstance(values, dict) else {}


def describe(value: Any) -> Any:
    """Return a description of `value` that is the same in every process, and differs if its behavior may differ."""
    return _Describer().describe(value, 0)


class _Describer:
    """Describes each object once, so that circular references terminate."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._kept: list[Any] = []  # keeps the objects alive, so that no id is reused

    def describe(self, value: Any, depth: int) -> Any:
        """Return the description of `value`, at `depth` references from the first object."""
        if isinstance(value, _PLAIN):
            return value
        type_name = f'{type(value).__module__}.{type(value).__qualname__}'
        if id(value) in self._numbers or depth > _MAX_DEPTH:
            return type_name, self._numbers.get(id(value))
        self._numbers[id(value)] = len(self._kept)
        self._kept.append(value)
        return type_name, _own_properties(value), [self.describe(item, depth + 1) for item in _contents(value)]


def _own_properties(value: Any) -> Any:
    """Return what distinguishes `value` from others of its type, besides its contents."""
    if isinstance(value, types.ModuleType):
        return value.__name__
    if isinstance(value, type):
        return f'{value.__module__}.{value.__qualname__}'
    if isinstance(value, types.FunctionType):
        code = value.__code__  # distinguishes lambdas on one line, and functions of a console, which have no file
        return value.__module__, value.__qualname__, code.co_firstlineno, _bytecode(code)
    if isinstance(value, functools.partial):
        return len(value.args), list(value.keywords)
    if isinstance(value, dict):
        return [str(key) for key in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if isinstance(value, (list, tuple, types.MethodType)):
        return ''
    if hasattr(value, 'dtype') and hasattr(value, 'shape'):  # an array or tensor: its repr omits most values
        return _array_digest(value)
    return re.sub(r' at 0x[0-9a-fA-F]+', '', repr(value)), list(_attributes(value))


def _array_digest(array: Any) -> tuple:
    """Return dtype, shape and a hash of the values of a numpy array or torch tensor."""
    properties = str(array.dtype), tuple(array.shape)
    if hasattr(array, 'detach'):
        array = array.detach().cpu().double().numpy()
    elif 'object' in properties[0] or not hasattr(array, 'tobytes'):
        return *properties, repr(array.tolist() if hasattr(array, 'tolist') else array)
    return *properties, hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest()


def _bytecode(code: types.CodeType) -> tuple:
    return code.co_code, code.co_names, [_constant(item) for item in code.co_consts]


def _constant(item: Any) -> Any:
    if isinstance(item, types.CodeType):
        return _bytecode(item)
    return sorted(map(repr, item)) if isinstance(item, frozenset) else repr(item)
