"""What to take instead of a template that cannot be used: only names whose special tokens the tokenizer has."""

from difflib import SequenceMatcher
from functools import lru_cache
from typing import TYPE_CHECKING

from ..errors import TemplateError
from ..messages import exchange
from . import FOLDER
from .template_tokens import SEVERAL_CALLS, THOUGHTS, TOOLS, fitting, suggested

if TYPE_CHECKING:
    from .template import ChatTemplate

_PROBE = exchange('What is 2+2?', '4.') + exchange('And 3+3?', '6.')
# Below this likeness of the rendered probe, a name would be a guess.
_ALIKE = 0.8
_WRITE = 'write a .jinja file with generation marks'


def closest(template: 'ChatTemplate') -> str:
    """Return a sentence that says what to take instead of `template`."""
    name = _closest(template.source, tuple(template.variables.items()), template.end_tokens)
    if name is None:
        fit = suggested(template.end_tokens)
        return f'No named template is close to it (those that fit this tokenizer are {fit}); {_WRITE}.'
    return f"Take the named template closest to it: chat_template='{name}'."


def for_tools(template: 'ChatTemplate', several: bool = False) -> str:
    """Return what to take where `template` has no form for tools, or none for `several` calls in one reply."""
    names = [name for name in (SEVERAL_CALLS if several else TOOLS) if name != template.name]
    return _take(fitting(template.end_tokens, names), f'a form for {"several calls" if several else "tools"}')


def for_thoughts(template: 'ChatTemplate') -> str:
    """Return what to take where `template` has no place for the thought of a reply."""
    return _take(fitting(template.end_tokens, THOUGHTS), 'a place for thoughts', 'or write thoughts into the replies')


def _take(names: list[str], what: str, otherwise: str = '') -> str:
    if names:
        return ', '.join(filter(None, (f'take {", ".join(names)}', otherwise)))
    return ' '.join(
        filter(
            None, (f'no named template with {what} has its tokens in this tokenizer: {_WRITE} and {what}', otherwise)
        )
    )


@lru_cache
def _closest(source: str, variables: tuple, end_tokens: tuple[str, ...]) -> str | None:
    from .template import ChatTemplate

    def text(name: str, source: str) -> str:
        try:
            return ChatTemplate(name, source, {'bos_token': '', 'eos_token': '</s>', **dict(variables)}, ()).run(_PROBE)
        except TemplateError:
            return ''

    wanted = text('given', source)
    likeness = {
        name: SequenceMatcher(None, wanted, text(name, (FOLDER / f'{name}.jinja').read_text('utf-8')), False).ratio()
        for name in fitting(end_tokens)
        if name != 'plain'
    }
    best = max(likeness, key=likeness.get)
    return best if likeness[best] >= _ALIKE else None
