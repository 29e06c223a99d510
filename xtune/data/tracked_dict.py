"""Dicts that record which of their keys are read."""

import json
from collections.abc import Iterator
from typing import Any


class TrackedDict(dict):
    """A dict that records the keys read from it in `read_keys`; dicts inside it do the same."""

    def __init__(self, values: dict) -> None:
        super().__init__({key: track(value) for key, value in values.items()})
        self.read_keys: set = set()

    def __getitem__(self, key: Any) -> Any:
        self.read_keys.add(key)
        return super().__getitem__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value of `key`."""
        self.read_keys.add(key)
        return super().get(key, default)

    def pop(self, key: Any, *default: Any) -> Any:
        """Remove and return the value of `key`."""
        self.read_keys.add(key)
        return super().pop(key, *default)

    def items(self) -> Any:
        """Return keys and values; counts as reading all of them."""
        self.read_keys.update(dict.keys(self))
        return super().items()

    def values(self) -> Any:
        """Return the values; counts as reading all of them."""
        self.read_keys.update(dict.keys(self))
        return super().values()

    def copy(self) -> dict:
        """Return a plain dict; counts as reading all keys."""
        return dict(self.items())

    def __or__(self, other: dict) -> dict:
        return self.copy() | other

    def __ror__(self, other: dict) -> dict:
        return other | self.copy()

    def __iter__(self) -> Iterator:  # without it, `{**row}` would copy the values without calling `__getitem__`
        return super().__iter__()

    def keys(self) -> Any:
        """Return the keys; does not count as reading them."""
        return super().keys()


def track(value: Any) -> Any:
    """Return `value` with every dict in it tracked."""
    if isinstance(value, dict):
        return TrackedDict(value)
    return [track(item) for item in value] if isinstance(value, list) else value


def parse_json(row: dict, text: str) -> Any:
    """Return the value of the JSON `text`, from a column of `row`; tracked if the row is.

    Raises:
        ValueError: `text` is not JSON.
    """
    value = json.loads(text)
    return track(value) if isinstance(row, TrackedDict) else value
