"""From a row to a checked conversation: the map function of a source, tried on its first rows."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..config.lazy import named
from ..config.sections import Source
from ..errors import DataError, XtuneError
from ..registry import MAP_FNS, lookup
from ..templates import system as system_prompts
from ..templates.system import system_text
from . import conversation, map_fns
from .conversation import Conversation, RowError, Tokens, checked
from .detect import fitting, require
from .local import BUNDLED
from .own_code import code_hash
from .sources import Row


@dataclass(frozen=True)
class RowMapper:
    """Maps the rows of one source: `function` with its arguments, then `system` where a row brings none."""

    function: Callable
    system: str | None = None

    def __call__(self, row: dict) -> Conversation | Tokens:
        """Return the conversation of `row`; what the function did not expect makes a bad row, not the end of the run.

        Raises:
            RowError: The row cannot be used.
        """
        try:
            mapped = self.function(row)
        except (RowError, XtuneError):
            raise
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise RowError('the map function fails', f'{type(error).__name__}: {error}') from error
        made = checked(mapped)
        if self.system is None or isinstance(made, Tokens) or made.messages[0]['role'] in ('system', 'text'):
            return made
        return Conversation([{'role': 'system', 'content': self.system}, *made.messages], made.tools, made.notes)

    @property
    def name(self) -> str:
        """Name of the function."""
        return label(getattr(self.function, 'func', self.function))

    def identity(self) -> tuple:
        """Return everything the result depends on besides the row."""
        return label(getattr(self.function, 'func', self.function)), _code(self.function), self.system


def row_mapper(source: Source, head: list[Row]) -> RowMapper:
    """Return the mapper of `source`, tried on the first rows.

    Raises:
        ConfigError: No function is registered, or can be imported, under that name.
        DataError: It fits none of the rows; the message names the one that would.
    """
    name = source.map_fn
    if name == 'auto':
        # Its columns are those of `openai`, its texts hold placeholders.
        bundled = source.path in BUNDLED and head[0].origin == str(BUNDLED[source.path])
        name = source.path if bundled else require(head[0].values, source.path)
    is_registered = isinstance(name, str) and '.' not in name
    function = lookup(MAP_FNS, name.removesuffix('_map_fn')) if is_registered else named(name)
    arguments, signature = dict(source.map_args or {}), inspect.signature(function)
    if source.system and 'system' in signature.parameters:
        arguments.setdefault('system', source.system)  # instead of the function's own default
    try:
        signature.bind({}, **arguments)
    except TypeError as error:
        raise DataError(f'map function `{label(function)}`: {error}; see train_dataset.map_args') from error
    bound = partial(function, **arguments) if arguments else function
    mapper = RowMapper(bound, system_text(source.system) if source.system else None)
    errors = []
    for row in head:
        try:
            mapper(row.values)
            return mapper
        except RowError as error:
            errors.append(error)
    if all(error.reason.startswith(('no column', 'column', 'no "###')) for error in errors):
        better = fitting(head[0].values)
        hint = f"; map_fn='{better}' fits these columns" if better and lookup(MAP_FNS, better) is not function else ''
        raise DataError(f'{head[0].place} does not fit the map function `{label(function)}`: {errors[0]}{hint}')
    return mapper


def _code(function: Callable) -> str:
    """Return a text that changes with the source and the values on which the result of `function` depends."""
    digest, uses_package = code_hash(function)
    if not uses_package:
        return digest
    folder = Path(map_fns.__file__).parent
    paths = [*sorted(folder.glob('*.py')), Path(conversation.__file__), Path(system_prompts.__file__)]
    return digest + ''.join(path.read_text(encoding='utf-8') for path in paths)


def label(function: Callable) -> str:
    """Return the name of a map function as a config may give it."""
    return getattr(function, '__name__', type(function).__name__).removesuffix('_map_fn')
