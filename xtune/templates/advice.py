"""Suggest a template instead of one that cannot be used: only names whose special tokens the tokenizer has."""

from difflib import SequenceMatcher
from functools import lru_cache

from . import FOLDER
from .probes import TWO_EXCHANGES
from .rendering import JinjaTemplate
from .template_tokens import SUPPORT_REASONING, SUPPORT_SEVERAL_CALLS, SUPPORT_TOOLS, compatible, suggestions

# Minimum similarity of the rendered conversation; a name below it would be a guess.
_MIN_SIMILARITY = 0.8
_WRITE_ONE = 'write a .jinja file with {% generation %} blocks'


def most_similar(source: str, variables: dict[str, str], end_tokens: tuple[str, ...]) -> str:
    """Return a sentence that names the built-in template most similar to the template `source`."""
    name = _most_similar(source, tuple(variables.items()), end_tokens)
    if name is None:
        return (
            f'No built-in template is similar to it (compatible with this tokenizer: {suggestions(end_tokens)}); '
            f'{_WRITE_ONE}.'
        )
    return f"Use the most similar built-in template: chat_template='{name}'."


def for_tools(name: str, end_tokens: tuple[str, ...], several_calls: bool = False) -> str:
    """Return what to use if the template `name` does not support tools, or `several_calls` in one message."""
    names = [other for other in (SUPPORT_SEVERAL_CALLS if several_calls else SUPPORT_TOOLS) if other != name]
    return _use(compatible(end_tokens, names), 'several tool calls in one message' if several_calls else 'tools')


def for_reasoning(end_tokens: tuple[str, ...]) -> str:
    """Return what to use if a template does not support reasoning."""
    return _use(compatible(end_tokens, SUPPORT_REASONING), 'reasoning', ', or write the reasoning into the content')


def _use(names: list[str], feature: str, alternative: str = '') -> str:
    if names:
        return f'use {", ".join(names)}{alternative}'
    return (
        f'no built-in template that supports {feature} fits this tokenizer: {_WRITE_ONE} that supports '
        f'{feature}{alternative}'
    )


@lru_cache
def _most_similar(source: str, variables: tuple, end_tokens: tuple[str, ...]) -> str | None:
    def text(source: str) -> str:
        template = JinjaTemplate(source, {'bos_token': '', 'eos_token': '</s>', **dict(variables)})
        try:
            return template.render(TWO_EXCHANGES, None, add_generation_prompt=False)
        except Exception:  # jinja2 and raise_exception() in templates use many classes
            return ''

    wanted = text(source)
    similarity = {
        name: SequenceMatcher(None, wanted, text((FOLDER / f'{name}.jinja').read_text('utf-8')), False).ratio()
        for name in compatible(end_tokens)
        if name != 'plain'
    }
    best = max(similarity, key=similarity.get)
    return best if similarity[best] >= _MIN_SIMILARITY else None
