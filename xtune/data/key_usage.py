"""Find the columns and keys of rows that the map function never reads, to report them as not used.

Reading is recorded, not declared, so it also works for map functions of users: the function gets the row as dicts that
record each key it reads. `name in row`, or iterating over the names, is not reading. A dict of which no key is read,
such as the arguments of a tool call, is passed on as a whole and counts as used.

Rows of the same structure (the same columns with content, the same roles and keys of messages) are read alike. In each
chunk of rows, the first row of each structure is recorded, and up to `MAX_RECORDED` in all while something is unread.
"""

from collections.abc import Callable, Hashable
from typing import Any

from ..utils.visible import shortened
from .sources import Row
from .tracked_dict import TrackedDict
from .unused_data import UnusedData

MAX_RECORDED = 20  # rows of one structure, per chunk
_DEPTH = 3  # nested dicts that make up the structure of a row: message, call, function


class KeyUsage:
    """Record which keys of the rows of one chunk are read.

    Args:
        mapper: The map function.
    """

    def __init__(self, mapper: Callable[[dict], Any]) -> None:
        self.mapper = mapper
        self._structures: dict[Hashable, _Structure] = {}

    def add(self, row: Row) -> None:
        """Count `row`, which the mapper has accepted, and record the keys read unless its structure is known."""
        key = _structure_of(row.values, _DEPTH)
        structure = self._structures.get(key)
        if structure is None:
            structure = self._structures[key] = _Structure()
        structure.rows += 1
        if structure.rows == 1 or (structure.unread and structure.rows <= MAX_RECORDED):
            tracked = TrackedDict(row.values)
            try:
                self.mapper(tracked)
            except Exception:  # the function does not accept a subclass of dict, or counts its calls
                return
            unread, read = {}, set()
            _collect(tracked, '', True, unread, read)
            structure.record(row.place, unread, read)

    def add_to(self, unused: UnusedData) -> None:
        """Add the keys that were not read in this chunk to `unused`."""
        for structure in self._structures.values():
            unused.read |= structure.read
            for name, example in structure.unread.items():
                unused.count(name, structure.place, example, structure.rows)


class _Structure:
    """Rows of one structure: their number, the first place, and the names of keys read and unread."""

    def __init__(self) -> None:
        self.rows, self.place = 0, ''
        self.read: set[str] = set()
        self.unread: dict[str, str] = {}

    def record(self, place: str, unread: dict[str, str], read: set[str]) -> None:
        self.read |= read
        if not self.place:
            self.place, self.unread = place, unread
        self.unread = {name: example for name, example in self.unread.items() if name in unread}


def has_content(value: Any) -> bool:
    """Tell whether a value is not null, NaN, blank text, or a list or dict of such values."""
    if isinstance(value, str):
        return bool(value) and not value.isspace()
    if isinstance(value, dict):
        return any(map(has_content, dict.values(value)))
    if isinstance(value, list):
        return any(map(has_content, value))
    return value is not None and value == value


def _structure_of(row: dict, depth: int) -> Hashable:
    """Return a key that differs between rows that may be read differently."""
    parts = []
    for key, value in row.items():
        value_type = type(value)
        if value_type is list:
            if value and type(value[0]) is dict:
                parts.append((key, frozenset([_structure_of_entry(i, depth) for i in value if type(i) is dict])))
            elif value:
                parts.append(key)
        elif value_type is dict:
            if value:
                parts.append((key, _structure_of(value, depth - 1) if depth > 1 else None))
        elif value is not None and value != '':
            parts.append(key)
    return tuple(parts)


def _structure_of_entry(item: dict, depth: int) -> Hashable:
    for value in item.values():
        if type(value) is not str or not value:
            break
    else:
        return (item.get('role'), item.get('from'), *item)  # most messages, in a third of the time
    return (item.get('role', item.get('from')), _structure_of(item, depth - 1) if depth > 1 else None)


def _collect(value: Any, path: str, is_row: bool, unread: dict[str, str], read: set[str]) -> None:
    """Add the keys inside `value` to `read`, or with an example to `unread`."""
    if isinstance(value, list):
        for item in value:
            _collect(item, f'{path}{_role(item)}', False, unread, read)
    elif isinstance(value, TrackedDict) and (value.read_keys or is_row):
        for key, inner in dict.items(value):
            name = f'column `{key}`' if is_row else f'key `{path}.{key}`'
            if key in value.read_keys:
                read.add(name)
                _collect(inner, f'{path}.{key}' if path else str(key), False, unread, read)
            elif has_content(inner):
                unread.setdefault(name, shortened(inner))


def _role(item: Any) -> str:
    role = dict.get(item, 'role', dict.get(item, 'from')) if isinstance(item, dict) else None
    return f'[{role}]' if isinstance(role, str) else '[]'
