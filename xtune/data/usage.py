"""Which columns and keys of a row its map function reads. What it never asks for is reported as not used.

Reading is observed, not declared, so it holds for map functions of users too: a row is given to the function as dicts
that note each key that is asked for. `name in row`, or going over the names, is no reading. A dict of which no key is
asked for, such as the arguments of a call, is handed on whole and counts as used.

Rows of one form (the same columns with content, the same roles and keys of messages) are read alike. Of each form in a
chunk of rows the first is observed, and up to `OBSERVED` more while something in it is not read.
"""

from collections.abc import Callable, Hashable
from typing import Any

from ..utils.visible import shortened
from .observed import Observed
from .sources import Row
from .unused import Unused

OBSERVED = 20  # rows of one form in one chunk
_DEPTH = 3  # dicts inside dicts that make up the form of a row: message, call, function


class Usage:
    """Observes the rows of one chunk.

    Args:
        mapper: The map function.
    """

    def __init__(self, mapper: Callable[[dict], Any]) -> None:
        self.mapper = mapper
        self._forms: dict[Hashable, _Form] = {}

    def look(self, row: Row) -> None:
        """Count `row`, which the mapper has accepted, and observe how it is read unless its form is known."""
        key = _form(row.values, _DEPTH)
        form = self._forms.get(key)
        if form is None:
            form = self._forms[key] = _Form()
        form.rows += 1
        if form.rows == 1 or (form.unread and form.rows <= OBSERVED):
            watched = Observed(row.values)
            try:
                self.mapper(watched)
            except Exception:  # a function that cannot take a subclass of dict, or counts its calls
                return
            unread, read = {}, set()
            _sort(watched, '', True, unread, read)
            form.observe(row.place, unread, read)

    def add_to(self, unused: Unused) -> None:
        """Add what was not read in this chunk to `unused`."""
        for form in self._forms.values():
            unused.read |= form.read
            for name, shown in form.unread.items():
                unused.count(name, form.place, shown, form.rows)


class _Form:
    def __init__(self) -> None:
        self.rows, self.place = 0, ''
        self.read: set[str] = set()
        self.unread: dict[str, str] = {}

    def observe(self, place: str, unread: dict[str, str], read: set[str]) -> None:
        self.read |= read
        if not self.place:
            self.place, self.unread = place, unread
        self.unread = {name: shown for name, shown in self.unread.items() if name in unread}


def has_content(value: Any) -> bool:
    """Tell whether a cell or key holds anything: not null, NaN, blank text, or a list or dict of such values."""
    if isinstance(value, str):
        return bool(value) and not value.isspace()
    if isinstance(value, dict):
        return any(map(has_content, dict.values(value)))
    if isinstance(value, list):
        return any(map(has_content, value))
    return value is not None and value == value


def _form(row: dict, depth: int) -> Hashable:
    """Return what tells rows apart that may be read differently."""
    parts = []
    for key, value in row.items():
        kind = type(value)
        if kind is list:
            if value and type(value[0]) is dict:
                parts.append((key, frozenset([_entry(item, depth) for item in value if type(item) is dict])))
            elif value:
                parts.append(key)
        elif kind is dict:
            if value:
                parts.append((key, _form(value, depth - 1) if depth > 1 else None))
        elif value is not None and value != '':
            parts.append(key)
    return tuple(parts)


def _entry(item: dict, depth: int) -> Hashable:
    for value in item.values():
        if type(value) is not str or not value:
            break
    else:
        return (item.get('role'), item.get('from'), *item)  # most messages, in a third of the time
    return (item.get('role', item.get('from')), _form(item, depth - 1) if depth > 1 else None)


def _sort(value: Any, path: str, is_row: bool, unread: dict[str, str], read: set[str]) -> None:
    """Put the keys in `value` into `unread`, with what they hold, or into `read`."""
    if isinstance(value, list):
        for item in value:
            _sort(item, f'{path}{_role(item)}', False, unread, read)
    elif isinstance(value, Observed) and (value.read or is_row):
        for key, inner in dict.items(value):
            name = f'column `{key}`' if is_row else f'key `{path}.{key}`'
            if key in value.read:
                read.add(name)
                _sort(inner, f'{path}.{key}' if path else str(key), False, unread, read)
            elif has_content(inner):
                unread.setdefault(name, shortened(inner))


def _role(item: Any) -> str:
    role = dict.get(item, 'role', dict.get(item, 'from')) if isinstance(item, dict) else None
    return f'[{role}]' if isinstance(role, str) else '[]'
