"""Ranges of values that a config passes to a library, with words for the error."""

import math
from collections.abc import Callable, Iterator
from typing import Any

Check = tuple[Callable[[Any], bool], str]


def number(low: float, high: float = math.inf, above: bool = False, below: bool = False) -> Check:
    """Return a check for finite numbers from `low` to `high`, and its words; `above`, `below`: without that limit."""

    def fits(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            return False
        return (value > low if above else value >= low) and (value < high if below else value <= high)

    words = f'a number {"above" if above else "of at least"} {low:g}'
    return fits, words + ('' if high == math.inf else f' and {"below" if below else "at most"} {high:g}')


def whole_number(low: int) -> Check:
    """Return a check for whole numbers from `low` on, and its description."""
    return lambda value: type(value) is int and value >= low, f'a whole number of at least {low}'


def numbers(count: int, each: Check) -> Check:
    """Return a check for lists and tuples of `count` numbers that pass `each`, and its description."""

    def fits(value: Any) -> bool:
        return isinstance(value, (list, tuple)) and len(value) == count and all(map(each[0], value))

    return fits, f'{count} numbers in brackets, each {each[1].removeprefix("a number ")}'


def flag() -> Check:
    """Return a check for True and False, and its description."""
    return lambda value: isinstance(value, bool), 'True or False'


def out_of_range(section: str, given: dict[str, Any], checks: dict[str, Check]) -> Iterator[str]:
    """Yield the keys of `section` whose values do not pass their check."""
    for key, (fits, words) in checks.items():
        if key in given and not fits(given[key]):
            yield f'`{section}.{key}` must be {words}, got {given[key]!r}'
