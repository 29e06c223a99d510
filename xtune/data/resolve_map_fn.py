"""Resolve the map function of a source, and try it on the first rows."""

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
from .detect import detect_map_fn, require_map_fn
from .local import BUNDLED
from .mapper import RowMapper, label
from .sources import Row

# Values that detect the map function by the columns; XTuner v0.1 used None where rows need no map function.
_BY_COLUMNS = ('auto', None)


def resolve_row_mapper(source: Source, head: list[Row], renders_reasoning: bool = True) -> RowMapper:
    """Return the mapper of `source`.

    Args:
        source: Names the map function and its arguments.
        head: The first rows, to detect and try the function.
        renders_reasoning: The chat template renders reasoning content.

    Raises:
        ConfigError: The named function is neither registered nor importable.
        DataError: It fits none of the rows; the message names one that does.
    """
    function = _function(source, head)
    arguments, signature = dict(source.map_args or {}), _signature(function)
    if source.system and 'system' in signature.parameters:
        arguments.setdefault('system', source.system)  # replaces the function's default
    try:
        signature.bind({}, **arguments)
    except TypeError as error:
        raise DataError(f'map function `{label(function)}`: {error}; see train_dataset.map_args') from error
    system = system_text(source.system) if source.system else None
    takes_system = 'system' in signature.parameters
    is_built_in = function.__module__.startswith(f'{map_fns.__name__}.') if hasattr(function, '__module__') else False

    def make_mapper(function: Callable, arguments: dict) -> RowMapper:
        bound = partial(function, **arguments) if arguments else function
        return RowMapper(bound, system, is_built_in, takes_system, renders_reasoning, frozenset(source.ignore))

    mapper = make_mapper(function, arguments)
    errors = _errors(mapper, head)
    no_columns = all(error.reason.startswith(('no column', 'column', 'no "###')) for error in errors)
    if errors and (better := _better_map_fn(function, head, None if no_columns else make_mapper)):
        raise DataError(
            f"{head[0].place} does not fit the map function `{label(function)}`: {errors[0]}; map_fn='{better}' fits "
            "these columns, and map_fn='auto' selects it"
        )
    if errors and no_columns:
        raise DataError(f'{head[0].place} does not fit the map function `{label(function)}`: {errors[0]}')
    return mapper


def _signature(function: Callable) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except ValueError as error:  # `dict`
        raise ConfigError(f'map_fn: `{label(function)}` is not a Python function; wrap it in one') from error


def check_map_fns(sources: Iterable[Source]) -> None:
    """Check that the map functions of `sources` exist, before rows are read.

    Raises:
        ConfigError: A named function is neither registered nor importable.
    """
    for source in sources:
        if source.map_fn not in _BY_COLUMNS:
            _named(source.map_fn)


def _function(source: Source, head: list[Row]) -> Callable:
    if source.map_fn not in _BY_COLUMNS:
        return _named(source.map_fn)
    # The bundled data set has the columns of `openai`, but placeholders in its texts.
    bundled = source.path in BUNDLED and head[0].origin == str(BUNDLED[source.path])
    return _named(source.path if bundled else require_map_fn(head[0].values, source.path))


def _named(name: Any) -> Callable:
    is_registered = isinstance(name, str) and '.' not in name
    function = lookup(MAP_FNS, name.removesuffix('_map_fn')) if is_registered else named(name)
    if not callable(function):
        raise ConfigError(
            f"map_fn={name!r} is not a function; set a function, a name such as 'sharegpt', or 'auto' to detect it by "
            'the columns'
        )
    return function


def _errors(mapper: RowMapper, head: list[Row]) -> list[RowError]:
    """Return why the first rows cannot be mapped; empty if one of them can."""
    errors = []
    for row in head:
        try:
            mapper(row.values)
            return []
        except RowError as error:
            errors.append(error)
    return errors


def _better_map_fn(
    function: Callable, head: list[Row], make_mapper: Callable[[Callable, dict], RowMapper] | None
) -> str | None:
    """Return the name of another map function that fits the columns and, if `make_mapper` is given, maps a row."""
    name = detect_map_fn(head[0].values)
    detected = lookup(MAP_FNS, name) if name else function
    fits = detected is not function and (make_mapper is None or not _errors(make_mapper(detected, {}), head))
    return name if fits else None
