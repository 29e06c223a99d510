"""Match config entries against module names, and describe the ones that match nothing."""

import re
from collections.abc import Collection
from typing import Any

from ..errors import ModelError, did_you_mean

MAX_SHOWN = 12  # names in a hint


def as_list(value: Any) -> list:
    """Return a list of the entries of `value`, which may be a single entry; peft stores lists as sets."""
    if isinstance(value, (list, tuple)):
        return list(value)
    return sorted(value) if isinstance(value, (set, frozenset)) else [] if value is None else [value]


def matches_suffix(name: str, entry: str) -> bool:
    """Return whether `entry` is the module name `name` or its last components."""
    return name == entry or name.endswith(f'.{entry}')


def unknown_name(option: str, entry: Any, names: Collection[str], noun: str = 'module') -> str:
    """Return the error message for an `entry` of `option` that matches none of `names`, with a hint."""
    hint = close_names(str(entry), names)
    if noun == 'parameter' and 'did you mean' not in hint:
        same_end = [name for name in names if name.rpartition('.')[2] == str(entry).rpartition('.')[2]]
        hint = f'; there is {same_end[0]}' if same_end else hint
    return f'{option} names {entry!r}, but the model has no such {noun}{hint}'


def close_names(entry: str, names: Collection[str]) -> str:
    """Return a hint: names close to the words of `entry`, else some existing names."""
    components = list(dict.fromkeys(part for name in names for part in name.split('.') if not part.isdecimal()))
    for word in (entry, *re.findall(r'[A-Za-z]\w*', entry)):
        if word not in components and (close := did_you_mean(word, components)):
            return close
    ends = list(dict.fromkeys(name.rpartition('.')[2] for name in names))
    ends = [end for end in ends if not end.isdecimal()]
    more = ', ...' if len(ends) > MAX_SHOWN else ''
    return f'; there are {", ".join(ends[:MAX_SHOWN])}{more}'


def raise_problems(problems: list[str]) -> None:
    """Raise a ModelError that lists all `problems`; do nothing without problems."""
    if problems:
        raise ModelError('; '.join(problems))
