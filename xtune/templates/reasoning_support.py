"""Test how a chat template handles the reasoning of assistant messages."""

from ..errors import TemplateError
from .rendering import RenderFunction

_PROBE = 'Is this text shown?'
_QUESTION = dict(role='user', content='What is 2+2?')


def supports_reasoning(render: RenderFunction) -> bool:
    """Return whether the template writes the `reasoning_content` of the last assistant message."""
    answer = dict(role='assistant', content='4.', reasoning_content=_PROBE)
    try:
        return _PROBE in render([_QUESTION, answer])
    except TemplateError:
        return False


def drops_earlier_reasoning(render: RenderFunction) -> bool:
    """Return whether the template drops the reasoning of assistant messages before the last user message."""
    return _PROBE not in _text_before_last_question(render, content='4.', reasoning_content=_PROBE)


def parses_think_tags(render: RenderFunction) -> bool:
    """Return whether the template separates reasoning in <think> tags from the rest of the content."""
    content = f'<think>{_PROBE}</think>4.'
    return content not in _text_before_last_question(render, content=content)


def _text_before_last_question(render: RenderFunction, **answer: str) -> str:
    """Return the text with this assistant message before the last user message; '' if the template refuses it."""
    try:
        return render([_QUESTION, dict(role='assistant', **answer), _QUESTION], add_generation_prompt=True)
    except TemplateError:
        return ''
