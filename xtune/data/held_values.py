"""What a callable holds beside its source: arguments of a partial, closures, defaults, attributes of its object.

Two map functions of one source, such as two results of a factory, differ in nothing else.
"""

import functools
import hashlib
import re
import types
from collections.abc import Callable, Iterator
from typing import Any

_PLAIN = (str, bytes, int, float, complex, bool, type(None))
_DEPTH = 50


def functions_in(function: Callable) -> Iterator[Any]:
    """Yield the functions and classes whose code runs when `function` is called, as far as it holds them itself."""
    seen: set[int] = set()
    waiting: list[Any] = [function]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, (types.FunctionType, type)):
            yield thing
        elif not isinstance(thing, (*_PLAIN, list, tuple, set, frozenset, dict, types.ModuleType)):
            yield type(thing)
        waiting += _inside(thing)


def _inside(thing: Any) -> list[Any]:
    """Return what a callable or a container holds."""
    if isinstance(thing, functools.partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, types.MethodType):
        return [thing.__func__, thing.__self__]
    if isinstance(thing, types.FunctionType):
        defaults = [*(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()]
        return [*_cells(thing), *defaults, *_attributes(thing).values()]
    if isinstance(thing, (list, tuple)):
        return list(thing)
    if isinstance(thing, (set, frozenset)):
        return sorted(thing, key=str)
    if isinstance(thing, dict):
        return list(thing.values())
    if isinstance(thing, type):
        return [base for base in thing.__mro__[1:] if base is not object]
    if isinstance(thing, (*_PLAIN, types.ModuleType)):
        return []
    return list(_attributes(thing).values())  # also what functools.lru_cache wraps


def _cells(function: types.FunctionType) -> list[Any]:
    found = []
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not filled yet
            continue
    return found


def _attributes(thing: Any) -> dict[str, Any]:
    """Return the attributes of an object, in a fixed order."""
    values = getattr(thing, '__dict__', {})
    return {str(name): values[name] for name in sorted(values, key=str)} if isinstance(values, dict) else {}


def held(thing: Any) -> Any:
    """Return a description of `thing` that is the same in each process, and differs where what it does may differ."""
    return _Describer().describe(thing, 0)


class _Describer:
    """Describes each object once, so that objects which refer to each other come to an end."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no id is used anew

    def describe(self, thing: Any, depth: int) -> Any:
        """Return the description of `thing`, which lies `depth` objects below the first one."""
        if isinstance(thing, _PLAIN):
            return thing
        kind = f'{type(thing).__module__}.{type(thing).__qualname__}'
        if id(thing) in self._numbers or depth > _DEPTH:
            return kind, self._numbers.get(id(thing))
        self._numbers[id(thing)] = len(self._kept)
        self._kept.append(thing)
        return kind, _name(thing), [self.describe(item, depth + 1) for item in _inside(thing)]


def _name(thing: Any) -> Any:
    """Return what tells `thing` from others of its type, beside what it holds."""
    if isinstance(thing, types.ModuleType):
        return thing.__name__
    if isinstance(thing, type):
        return f'{thing.__module__}.{thing.__qualname__}'
    if isinstance(thing, types.FunctionType):
        code = thing.__code__  # what tells two lambdas of one line apart, and functions of a console, without a file
        return thing.__module__, thing.__qualname__, code.co_firstlineno, _bytecode(code)
    if isinstance(thing, functools.partial):
        return len(thing.args), list(thing.keywords)
    if isinstance(thing, dict):
        return [str(key) for key in thing]
    if isinstance(thing, (set, frozenset)):
        return sorted(map(str, thing))
    if isinstance(thing, (list, tuple, types.MethodType)):
        return ''
    if hasattr(thing, 'dtype') and hasattr(thing, 'shape'):  # an array or a tensor, whose repr leaves most of it out
        return _array(thing)
    return re.sub(r' at 0x[0-9a-fA-F]+', '', repr(thing)), list(_attributes(thing))


def _array(thing: Any) -> tuple:
    """Return type, shape and a hash of the values of an array of numpy or a tensor of torch."""
    what = str(thing.dtype), tuple(thing.shape)
    if hasattr(thing, 'detach'):
        thing = thing.detach().cpu().double().numpy()
    elif 'object' in what[0] or not hasattr(thing, 'tobytes'):
        return *what, repr(thing.tolist() if hasattr(thing, 'tolist') else thing)
    return *what, hashlib.blake2b(thing.tobytes(), digest_size=16).hexdigest()


def _bytecode(code: types.CodeType) -> tuple:
    return code.co_code, code.co_names, [_constant(item) for item in code.co_consts]


def _constant(item: Any) -> Any:
    if isinstance(item, types.CodeType):
        return _bytecode(item)
    return sorted(map(repr, item)) if isinstance(item, frozenset) else repr(item)
