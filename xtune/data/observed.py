"""Rows as dicts that note which of their keys are read."""

import json
from collections.abc import Iterator
from typing import Any


class Observed(dict):
    """A dict that notes which keys are read, and whose dicts do so too."""

    def __init__(self, values: dict) -> None:
        super().__init__({key: observed(value) for key, value in values.items()})
        self.read: set = set()

    def __getitem__(self, key: Any) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value of `key`."""
        self.read.add(key)
        return super().get(key, default)

    def pop(self, key: Any, *default: Any) -> Any:
        """Return and remove the value of `key`."""
        self.read.add(key)
        return super().pop(key, *default)

    def items(self) -> Any:
        """Return keys and values; all count as read."""
        self.read.update(dict.keys(self))
        return super().items()

    def values(self) -> Any:
        """Return the values; all count as read."""
        self.read.update(dict.keys(self))
        return super().values()

    def copy(self) -> dict:
        """Return a plain dict; all keys count as read."""
        return dict(self.items())

    def __or__(self, other: dict) -> dict:
        return self.copy() | other

    def __ror__(self, other: dict) -> dict:
        return other | self.copy()

    def __iter__(self) -> Iterator:  # without it `{**row}` would copy the values past `__getitem__`
        return super().__iter__()

    def keys(self) -> Any:
        """Return the names, which are not read by that."""
        return super().keys()


def observed(value: Any) -> Any:
    """Return `value` with every dict in it observed."""
    if isinstance(value, dict):
        return Observed(value)
    return [observed(item) for item in value] if isinstance(value, list) else value


def parsed(row: dict, text: str) -> Any:
    """Return what the JSON `text` of a column of `row` holds, observed if the row is.

    Raises:
        ValueError: It is not JSON.
    """
    value = json.loads(text)
    return observed(value) if isinstance(row, Observed) else value
