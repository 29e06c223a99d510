"""Map one row of a source to a checked conversation."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from .. import messages
from ..errors import XtuneError
from ..messages import Conversation, RowError, Tokens, checked
from ..templates import system_prompts as system_prompts
from . import map_fns, side_columns
from .user_code import code_hash


@dataclass(frozen=True)
class RowMapper:
    """Maps the rows of one source: `function` with its arguments, then `system` where a row brings none.

    `built_in`: columns beside the format (see `beside.py`) are looked for; `takes_system`: the function has an argument
    `system`; `takes_thoughts`: the template has a place
    for thoughts; `ignored`: columns that need not be used.
    """

    function: Callable
    system: str | None = None
    built_in: bool = False
    takes_system: bool = False
    takes_thoughts: bool = True
    ignored: frozenset[str] = frozenset()

    def __call__(self, row: dict) -> Conversation | Tokens:
        """Return the conversation of `row`; what the function did not expect makes a bad row, not the end of the run.

        Raises:
            RowError: The row cannot be used.
        """
        made = self._mapped(self.function, row)
        if isinstance(made, Tokens) or made.messages[0]['role'] == 'text':
            return made
        if self.built_in:
            made = self._with_columns(row, made)
        if not self.takes_thoughts:
            made = side_columns.without_thoughts(made)
        if self.system is None or made.messages[0]['role'] == 'system':
            return made
        return replace(made, messages=[{'role': 'system', 'content': self.system}, *made.messages])

    def _mapped(self, function: Callable, row: dict) -> Conversation | Tokens:
        try:
            mapped = function(row)
        except (RowError, XtuneError):
            raise
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise RowError('the map function fails', f'{type(error).__name__}: {error}') from error
        return checked(mapped)

    def _with_columns(self, row: dict, made: Conversation) -> Conversation:
        """Return `made` with the columns beside the format."""
        side_columns.check_media(row, made, self.ignored)
        if side_columns.ANY.isdisjoint(row):
            return made
        arguments = getattr(self.function, 'keywords', {}).values()
        used = {*self.ignored, *(value for value in arguments if isinstance(value, str))}
        if (name := side_columns.text_column(row, side_columns.SYSTEM, used)) is not None:
            if self.takes_system and made.messages[0]['role'] == 'system':
                # The system text of the row takes the place of the function's own.
                made = self._mapped(partial(self.function, system=None), row)
            made = side_columns.with_system(row, made, name)
        if (name := side_columns.text_column(row, side_columns.THOUGHT, used)) is not None:
            made = side_columns.with_thought(row, made, name, self.takes_thoughts)
        return made

    @property
    def name(self) -> str:
        """Name of the function."""
        return label(getattr(self.function, 'func', self.function))

    def identity(self) -> tuple:
        """Return everything the result depends on besides the row."""
        settings = self.system, self.built_in, self.takes_thoughts, sorted(self.ignored)
        return label(getattr(self.function, 'func', self.function)), _code(self.function), settings


def _code(function: Callable) -> str:
    """Return a text that changes with the source and the values on which the result of `function` depends."""
    digest, uses_package = code_hash(function)
    if not uses_package:
        return digest
    folder = Path(map_fns.__file__).parent
    paths = [*sorted(folder.glob('*.py')), Path(messages.__file__), Path(side_columns.__file__)]
    paths.append(Path(system_prompts.__file__))
    return digest + ''.join(path.read_text(encoding='utf-8') for path in paths)


def label(function: Callable) -> str:
    """Return the name of a map function as a config may give it."""
    return getattr(function, '__name__', type(function).__name__).removesuffix('_map_fn')
