"""Map a row of a source to a validated conversation."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from .. import messages
from ..errors import XtuneError
from ..messages import Conversation, RowError, Tokens, checked
from ..templates import system_prompts
from . import map_fns, side_columns
from .user_code import code_hash


@dataclass(frozen=True)
class RowMapper:
    """Maps the rows of one source.

    Attributes:
        function: The map function, with its arguments bound.
        system: System message of conversations without one.
        is_built_in: The function belongs to xtune: side columns (see `side_columns.py`) are read too.
        takes_system: The function has an argument `system`.
        renders_reasoning: The chat template renders reasoning content.
        ignored: Columns that need not be used.
    """

    function: Callable
    system: str | None = None
    is_built_in: bool = False
    takes_system: bool = False
    renders_reasoning: bool = True
    ignored: frozenset[str] = frozenset()

    def __call__(self, row: dict) -> Conversation | Tokens:
        """Return the conversation of `row`.

        Raises:
            RowError: The row cannot be used, or the function fails on it.
        """
        conversation = self._mapped(self.function, row)
        if isinstance(conversation, Tokens) or conversation.messages[0]['role'] == 'text':
            return conversation
        if self.is_built_in:
            conversation = self._with_side_columns(row, conversation)
        if not self.renders_reasoning:
            conversation = side_columns.without_reasoning(conversation)
        if self.system is None or conversation.messages[0]['role'] == 'system':
            return conversation
        return replace(conversation, messages=[{'role': 'system', 'content': self.system}, *conversation.messages])

    def _mapped(self, function: Callable, row: dict) -> Conversation | Tokens:
        try:
            mapped = function(row)
        except (RowError, XtuneError):
            raise
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise RowError('the map function failed', f'{type(error).__name__}: {error}') from error
        return checked(mapped)

    def _with_side_columns(self, row: dict, conversation: Conversation) -> Conversation:
        side_columns.check_media(row, conversation, self.ignored)
        if side_columns.ANY.isdisjoint(row):
            return conversation
        arguments = getattr(self.function, 'keywords', {}).values()
        used = {*self.ignored, *(value for value in arguments if isinstance(value, str))}
        if (name := side_columns.text_column(row, side_columns.SYSTEM, used)) is not None:
            if self.takes_system and conversation.messages[0]['role'] == 'system':
                # The row's system message replaces the function's default.
                conversation = self._mapped(partial(self.function, system=None), row)
            conversation = side_columns.with_system(row, conversation, name)
        if (name := side_columns.text_column(row, side_columns.REASONING, used)) is not None:
            conversation = side_columns.with_reasoning(row, conversation, name, self.renders_reasoning)
        return conversation

    @property
    def name(self) -> str:
        """Name of the map function."""
        return label(getattr(self.function, 'func', self.function))

    def identity(self) -> tuple:
        """Return everything the result depends on besides the row."""
        settings = self.system, self.is_built_in, self.renders_reasoning, sorted(self.ignored)
        return label(getattr(self.function, 'func', self.function)), _code(self.function), settings


def _code(function: Callable) -> str:
    """Return a string that changes with the source code and captured values that `function` depends on."""
    digest, uses_package = code_hash(function)
    if not uses_package:
        return digest
    folder = Path(map_fns.__file__).parent
    paths = [*sorted(folder.glob('*.py')), Path(messages.__file__), Path(side_columns.__file__)]
    paths.append(Path(system_prompts.__file__))
    return digest + ''.join(path.read_text(encoding='utf-8') for path in paths)


def label(function: Callable) -> str:
    """Return the name of a map function, as used in a config."""
    return getattr(function, '__name__', type(function).__name__).removesuffix('_map_fn')
