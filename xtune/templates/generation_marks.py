"""Check where the generation marks of a template stand: each reply begins where the prompt of inference ends.

    prompt          <|user|>Hi<|end|><|assistant|>
    training text   <|user|>Hi<|end|><|assistant|>Hello!<|end|>
    marked                                        [............]

The check renders a few short conversations when a template is loaded, those with a tool call or thoughts when the first
row has any, and none of the rows.
"""

from os.path import commonprefix
from typing import TYPE_CHECKING, NoReturn

from ..errors import TemplateError
from ..messages import Message, exchange
from .advice import closest

if TYPE_CHECKING:
    from .template import ChatTemplate, Span

PROBE = exchange('What is 2+2?', '4.') + exchange('And 3+3?', '6.')
TOOLS, THOUGHTS = 'a tool call', 'thoughts'
_SYSTEM: list[Message] = [{'role': 'system', 'content': 'Be brief.'}]
_SCHEMA = {'type': 'object', 'properties': {'a': {'type': 'integer'}}, 'required': ['a']}
_TOOLS = [{'type': 'function', 'function': {'name': 'add_up', 'description': 'Add.', 'parameters': _SCHEMA}}]
_ID = 'a1b2c3d4e'  # of nine characters, as templates of Mistral demand
_CALL = {'type': 'function', 'id': _ID, 'function': {'name': 'add_up', 'arguments': {'a': 2}}}
_CALLING: list[Message] = [
    PROBE[0],
    {'role': 'assistant', 'content': '', 'tool_calls': [_CALL]},
    {'role': 'tool', 'name': 'add_up', 'tool_call_id': _ID, 'content': '4'},
    *PROBE[1:],
]
_THOUGHT = 'A sum.'
# The first reply gets no loss: most templates leave out its thought.
_THINKING: list[Message] = [
    m | dict(reasoning_content=_THOUGHT, thinking=_THOUGHT, train=i > 1) if m['role'] == 'assistant' else m
    for i, m in enumerate(PROBE)
]
# What a conversation has -> its messages and tools.
_MORE = {
    'a system message': (_SYSTEM + PROBE, None),
    TOOLS: (_CALLING, _TOOLS),
    THOUGHTS: (_THINKING, None),
}
_WIDTH = 60  # characters shown of a text


def check_marks(template: 'ChatTemplate') -> None:
    """Render conversations with and without a system message, and compare them with the prompts.

    What the template refuses, or leaves out, is not compared here: a row that holds it is refused.

    Raises:
        TemplateError: The template refuses two exchanges; a prompt of inference is not what stands before a marked
            reply; or the end of turn stands behind the marks.
    """
    text, spans = rendered = template.render(PROBE)
    _check(template, PROBE, None, rendered)
    _check_end(template, text, spans[0])
    if (error := fault_with('a system message', template)) is not None:
        raise error


def fault_with(what: str, template: 'ChatTemplate') -> TemplateError | None:
    """Return what is wrong with the marks in a conversation with `what`: `TOOLS` or `THOUGHTS`."""
    messages, tools = _MORE[what]
    try:
        rendered = template.marked(messages, tools)
    except TemplateError:
        return None
    try:
        _check(template, messages, tools, rendered, f', in a conversation with {what},')
    except TemplateError as error:
        return error
    return None


def _check(
    template: 'ChatTemplate',
    messages: list[Message],
    tools: list[dict] | None,
    rendered: tuple[str, list['Span']],
    where: str = '',
) -> None:
    text, spans = rendered
    replies = [i for i, message in enumerate(messages) if message['role'] == 'assistant']
    for index, span in zip(replies, spans, strict=True):
        before = messages[:index]
        # A reply with a thought may follow a prompt that asks for one.
        prompts = [template.run(before, tools, prompt=True)]
        prompts += [template.run(before, tools, prompt=True, enable_thinking=True)] if messages is _THINKING else []
        if text[: span[0]] not in prompts:
            _refuse(f'template `{template.name}`{where}', prompts[0], text, span, closest(template))


def _check_end(template: 'ChatTemplate', text: str, span: 'Span') -> None:
    """Raise if a token that ends the turn stands behind the marks and none within them."""
    if text[: span[1]].rstrip().endswith(template.end_tokens):
        return
    behind = text[span[1] :].lstrip()
    # A tag that the whole text begins with opens turns.
    tags = (tag for tag in template.end_tokens if behind.startswith(tag) and not text.startswith(tag))
    tag = next(tags, None)
    if tag is not None:
        raise TemplateError(
            f'template `{template.name}` writes {tag!r} behind {{% endgeneration %}}, so the model would not learn to '
            f'stop: the marked reply is {text[slice(*span)]!r}. Move the end of turn in front of '
            '{% endgeneration %}.'
        )


def _refuse(subject: str, prompt: str, text: str, span: 'Span', advice: str) -> NoReturn:
    """Raise the error that shows where the prompt of inference and the text before a reply differ."""
    same = _whole_tags(len(commonprefix([prompt, text])), prompt)
    if same < len(prompt):
        what = f'writes another prompt for inference than before a reply; they differ from character {same + 1} on'
        remedy = f'Write {prompt[same:][:_WIDTH]!r} before {{% generation %}} in each reply, or not in the prompt'
        first = max(same - _WIDTH // 2, 0)
    elif span[0] < same:
        inside = text[span[0] : same]
        what = f'marks {inside!r} as part of the reply, which the prompt of inference holds already'
        remedy = f'Write {inside!r} before {{% generation %}}'
        first = max(span[0] - _WIDTH // 2, 0)
    else:
        gap = text[same : span[0]]
        what = f'writes {gap!r} between the prompt of inference and the marked reply, which the model never learns'
        remedy = f'Write {gap!r} where add_generation_prompt is set, or behind {{% generation %}}'
        first = max(same - _WIDTH // 2, 0)
    raise TemplateError(
        f'{subject} {what}:\n'
        f'  prompt of inference  {_window(prompt, first)}\n'
        f'  training text        {_window(text, first)}\n'
        f'  marked as the reply  {_window(text[: span[1]], span[0])}\n'
        f'{remedy}. {advice}'
    )


def _whole_tags(at: int, text: str) -> int:
    """Return `at`, or where the tag begins that it would cut in two."""
    opened = text.rfind('<', 0, at)
    return opened if text.rfind('>', 0, at) < opened and at < len(text) else at


def _window(text: str, first: int) -> str:
    """Return the characters of `text` from `first` on, cut to one line."""
    shown = text[first : first + 2 * _WIDTH]
    return ('...' if first else '') + repr(shown)[1:-1] + ('...' if first + len(shown) < len(text) else '')
