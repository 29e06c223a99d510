"""From a row to a checked conversation: the map function of a source, tried on its first rows."""

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from ..config.lazy import named
from ..config.sections import Source
from ..errors import ConfigError, DataError
from ..messages import RowError
from ..registry import MAP_FNS, lookup
from ..templates.system_prompts import system_text
from . import map_fns
from .detect import fitting, require
from .local import BUNDLED
from .mapper import RowMapper, label
from .sources import Row

# XTuner v0.1 wrote None where rows need no map function.
_BY_COLUMNS = ('auto', None)


def row_mapper(source: Source, head: list[Row], takes_thoughts: bool = True) -> RowMapper:
    """Return the mapper of `source`, tried on the first rows; `takes_thoughts` says whether the template does.

    Raises:
        ConfigError: No function is registered, or can be imported, under that name.
        DataError: It fits none of the rows; the message names the one that would.
    """
    function = _function(source, head)
    arguments, signature = dict(source.map_args or {}), _signature(function)
    if source.system and 'system' in signature.parameters:
        arguments.setdefault('system', source.system)  # instead of the function's own default
    try:
        signature.bind({}, **arguments)
    except TypeError as error:
        raise DataError(f'map function `{label(function)}`: {error}; see train_dataset.map_args') from error
    system = system_text(source.system) if source.system else None
    takes_system = 'system' in signature.parameters
    built_in = function.__module__.startswith(f'{map_fns.__name__}.') if hasattr(function, '__module__') else False

    def mapper(function: Callable, arguments: dict) -> RowMapper:
        bound = partial(function, **arguments) if arguments else function
        return RowMapper(bound, system, built_in, takes_system, takes_thoughts, frozenset(source.ignore))

    errors = _errors(made := mapper(function, arguments), head)
    no_columns = all(error.reason.startswith(('no column', 'column', 'no "###')) for error in errors)
    if errors and (better := _better(function, head, None if no_columns else mapper)):
        raise DataError(
            f"{head[0].place} does not fit the map function `{label(function)}`: {errors[0]}; map_fn='{better}' fits "
            "these columns, and map_fn='auto' takes it"
        )
    if errors and no_columns:
        raise DataError(f'{head[0].place} does not fit the map function `{label(function)}`: {errors[0]}')
    return made


def _signature(function: Callable) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except ValueError as error:  # `dict`
        raise ConfigError(f'map_fn: `{label(function)}` is not written in Python; call it in a function') from error


def check_map_fns(sources: Iterable[Source]) -> None:
    """Refuse map functions that are not there, before rows are read.

    Raises:
        ConfigError: No function is registered, or can be imported, under one of the names.
    """
    for source in sources:
        if source.map_fn not in _BY_COLUMNS:
            _named(source.map_fn)


def _function(source: Source, head: list[Row]) -> Callable:
    if source.map_fn not in _BY_COLUMNS:
        return _named(source.map_fn)
    # Its columns are those of `openai`, its texts hold placeholders.
    bundled = source.path in BUNDLED and head[0].origin == str(BUNDLED[source.path])
    return _named(source.path if bundled else require(head[0].values, source.path))


def _named(name: Any) -> Callable:
    is_registered = isinstance(name, str) and '.' not in name
    found = lookup(MAP_FNS, name.removesuffix('_map_fn')) if is_registered else named(name)
    if not callable(found):
        raise ConfigError(
            f"map_fn={name!r} is no function; give one, its name such as 'sharegpt', or 'auto' to go by the columns"
        )
    return found


def _errors(mapper: RowMapper, head: list[Row]) -> list[RowError]:
    """Return why the first rows cannot be mapped; up to the first one that can."""
    errors = []
    for row in head:
        try:
            mapper(row.values)
            return []
        except RowError as error:
            errors.append(error)
    return errors


def _better(function: Callable, head: list[Row], mapper: Callable[[Callable, dict], RowMapper] | None) -> str | None:
    """Return the name of the map function that fits the columns, if it is another one and, as a `mapper`, maps one of
    the rows."""
    name = fitting(head[0].values)
    found = lookup(MAP_FNS, name) if name else function
    fits = found is not function and (mapper is None or not _errors(mapper(found, {}), head))
    return name if fits else None
