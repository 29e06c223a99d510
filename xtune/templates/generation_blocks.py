"""Check the `{% generation %}` blocks of a template: each must begin where the inference prompt ends.

    prompt          <|user|>Hi<|end|><|assistant|>
    training text   <|user|>Hi<|end|><|assistant|>Hello!<|end|>
    block                                         [............]

Only a few short conversations are rendered, not the data: two when a template is loaded, one with a tool call or
reasoning at the first row that contains any. What the template refuses or leaves out is not checked here: rows that
contain it are refused.
"""

from collections.abc import Callable

from ..errors import TemplateError
from ..messages import Message
from .probes import PROBES, TWO_EXCHANGES, WITH_SYSTEM_MESSAGE, Probe
from .prompt_mismatch import prompt_mismatch
from .rendering import RenderFunction, Span

RenderWithSpans = Callable[[list[Message], list[dict] | None], tuple[str, list[Span]]]


def block_fault(render: RenderWithSpans, render_text: RenderFunction, end_tokens: tuple[str, ...]) -> str | None:
    """Return what is wrong with the blocks in conversations with and without a system message, None if nothing is.

    Args:
        render: Returns the text of a conversation and the characters of each block.
        render_text: Returns the text only, also of prompts.
        end_tokens: Tokens that may end a turn.

    Raises:
        TemplateError: The template refuses a conversation of two exchanges, or a prompt.
    """
    text, spans = render(TWO_EXCHANGES, None)
    return (
        _mismatch(Probe(TWO_EXCHANGES), text, spans, render_text)
        or _end_fault(text, spans[0], end_tokens)
        or block_fault_with(WITH_SYSTEM_MESSAGE, render, render_text)
    )


def block_fault_with(feature: str, render: RenderWithSpans, render_text: RenderFunction) -> str | None:
    """Return what is wrong with the blocks in a conversation with `feature`, a key of `PROBES`; None if nothing is.

    Raises:
        TemplateError: The template renders the conversation but refuses one of its prompts.
    """
    probe = PROBES[feature]
    try:
        text, spans = render(probe.messages, probe.tools)
    except TemplateError:
        return None
    mismatch = _mismatch(probe, text, spans, render_text)
    return mismatch and f'(in a conversation with {feature}) {mismatch}'


def _mismatch(probe: Probe, text: str, spans: list[Span], render_text: RenderFunction) -> str | None:
    """Return how the text before the first wrong block differs from the inference prompt."""
    targets = [i for i, message in enumerate(probe.messages) if message['role'] == 'assistant']
    for index, span in zip(targets, spans, strict=True):
        before = probe.messages[:index]
        prompts = [render_text(before, probe.tools, add_generation_prompt=True)]
        if probe.may_enable_thinking:
            prompts.append(render_text(before, probe.tools, add_generation_prompt=True, enable_thinking=True))
        if text[: span[0]] not in prompts:
            return prompt_mismatch(prompts[0], text, span)
    return None


def _end_fault(text: str, span: Span, end_tokens: tuple[str, ...]) -> str | None:
    """Return a sentence if the token that ends the turn is after the block instead of inside it."""
    if text[: span[1]].rstrip().endswith(end_tokens):
        return None
    after = text[span[1] :].lstrip()
    # A tag at the very start of the text opens turns.
    tag = next((tag for tag in end_tokens if after.startswith(tag) and not text.startswith(tag)), None)
    if tag is None:
        return None
    return (
        f'writes {tag!r} after {{% endgeneration %}}, so the model would not learn to stop: the trained text is '
        f'{text[slice(*span)]!r}. Move the stop token in front of {{% endgeneration %}}.'
    )


def without_trailing_whitespace(text: str, span: Span, end_tokens: tuple[str, ...]) -> Span:
    """Return `span` without whitespace after its stop token, which the model never generates."""
    start, end = span
    if not text[end - 1 : end].isspace():
        return span
    stripped = text[start:end].rstrip()
    return (start, start + len(stripped)) if stripped.endswith(end_tokens) else span
