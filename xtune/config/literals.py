"""Values of a config as Python source."""

import math
from collections.abc import Iterable
from keyword import iskeyword
from typing import Any

from ..errors import ConfigError
from .lazy import is_lazy, root

WIDTH = 100  # columns


def literal(value: Any, indent: int) -> str:
    """Return `value` as Python source.

    Args:
        value: Data and imported names.
        indent: Columns by which the line it begins in is indented; further lines are indented by more.

    Raises:
        ConfigError: It holds something that is neither data nor an imported name.
    """
    if is_lazy(value):
        return root(value)[1]
    pad, end = ' ' * (indent + 4), ' ' * indent
    if isinstance(value, dict):
        if not are_names(value):
            items = [f'{pad}{k!r}: {literal(v, indent + 4)},\n' for k, v in value.items()]
            return '{\n' + ''.join(items) + end + '}'
        items = [f'{pad}{k}={literal(v, indent + 4)},\n' for k, v in value.items()]
        return 'dict(\n' + ''.join(items) + end + ')' if items else 'dict()'
    if isinstance(value, (list, tuple)):
        items = [literal(v, indent + 4) for v in value]
        opening, closing = '[]' if isinstance(value, list) else '()'
        line = f'{opening}{", ".join(items)}{"," * (len(items) == 1 and opening == "(")}{closing}'
        if '\n' not in line and len(line) + indent + 20 <= WIDTH or not items:  # 20 columns for a name
            return line
        return f'{opening}\n' + ''.join(f'{pad}{item},\n' for item in items) + end + closing
    if isinstance(value, float) and math.isinf(value):
        return '1e999' if value > 0 else '-1e999'
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    raise ConfigError(f'a config holds data and imported names, not {type(value).__name__} {value!r}')


def are_names(keys: Iterable) -> bool:
    """Return whether all keys can be written as keyword arguments."""
    return all(isinstance(k, str) and k.isidentifier() and not iskeyword(k) for k in keys)
