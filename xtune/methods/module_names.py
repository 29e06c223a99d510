"""Entries of a config that name modules of a model, and what to say of those that name none."""

import re
from collections.abc import Collection
from typing import Any

from ..errors import ModelError, did_you_mean

SHOWN = 12  # names in a hint


def listed(value: Any) -> list:
    """Return the entries of a value that may be one entry; peft keeps lists as sets."""
    if isinstance(value, (list, tuple)):
        return list(value)
    return sorted(value) if isinstance(value, (set, frozenset)) else [] if value is None else [value]


def ends_with(name: str, entry: str) -> bool:
    """Tell whether the module `name` is the one that `entry` means: the whole name or its last parts."""
    return name == entry or name.endswith(f'.{entry}')


def unknown(place: str, entry: Any, names: Collection[str], kind: str = 'module') -> str:
    """Return the error of an `entry` at `place` in the config that is none of `names`."""
    close = closest(str(entry), names)
    if kind == 'parameter' and 'did you mean' not in close:
        shown = [name for name in names if name.rpartition('.')[2] == str(entry).rpartition('.')[2]]
        close = f'; there is {shown[0]}' if shown else close
    return f'{place} names {entry!r}, and no {kind} of the model is called so{close}'


def closest(entry: str, names: Collection[str]) -> str:
    """Return a hint: the names that are close to the words of `entry`, else some names that there are."""
    last = list(dict.fromkeys(part for name in names for part in name.split('.') if not part.isdecimal()))
    for word in (entry, *re.findall(r'[A-Za-z]\w*', entry)):
        if word not in last and (close := did_you_mean(word, last)):
            return close
    ends = list(dict.fromkeys(name.rpartition('.')[2] for name in names))
    ends = [end for end in ends if not end.isdecimal()]
    more = ', ...' if len(ends) > SHOWN else ''
    return f'; there are {", ".join(ends[:SHOWN])}{more}'


def refuse(problems: list[str]) -> None:
    """Raise a ModelError that lists all `problems`, if there are any."""
    if problems:
        raise ModelError('; '.join(problems))
