"""Which named template writes most like a given one: the advice where a model's own cannot be used."""

from difflib import SequenceMatcher
from functools import lru_cache
from typing import TYPE_CHECKING

from ..data.conversation import exchange
from ..errors import TemplateError
from . import FOLDER, NAMES

if TYPE_CHECKING:
    from .template import ChatTemplate

PROBE = exchange('What is 2+2?', '4.') + exchange('And 3+3?', '6.')
# Below this likeness of the rendered probe, a name would be a guess.
ALIKE = 0.8


def advice(template: 'ChatTemplate') -> str:
    """Return a sentence that says what to take instead of `template`."""
    name = _closest(template.source, tuple(template.variables.items()))
    if name is None:
        return f'No named template is close to it ({", ".join(NAMES)}); write a .jinja file with generation marks.'
    return f"Take the named template closest to it: template='{name}'."


@lru_cache
def _closest(source: str, variables: tuple) -> str | None:
    from .template import ChatTemplate

    def text(name: str, source: str) -> str:
        try:
            return ChatTemplate(name, source, {'bos_token': '', 'eos_token': '</s>', **dict(variables)}, ())._run(PROBE)
        except TemplateError:
            return ''

    wanted = text('given', source)
    likeness = {
        name: SequenceMatcher(None, wanted, text(name, (FOLDER / f'{name}.jinja').read_text('utf-8')), False).ratio()
        for name in NAMES
        if name != 'plain'
    }
    best = max(likeness, key=likeness.get)
    return best if likeness[best] >= ALIKE else None
