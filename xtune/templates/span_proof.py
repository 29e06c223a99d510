"""What a template without generation marks trains, proven by rendering prefixes.

    render(messages[:i], prompt)   <|user|>Hi<|end|><|assistant|>
    render(messages)               <|user|>Hi<|end|><|assistant|>Hello!<|end|>...
                                   ------- the same ------------>[trained     ]

The text before a reply must be what inference would prompt with, the reply must follow it unchanged, and a token that
ends the turn must follow the reply. Anything else is refused: a model trained on it would not stop, or would see
another prompt when it is used.
"""

from os.path import commonprefix
from typing import TYPE_CHECKING

from ..errors import TemplateError
from ..messages import Message
from .advice import closest

if TYPE_CHECKING:
    from .template import ChatTemplate, Span


def proven(
    template: 'ChatTemplate', messages: list[Message], tools: list[dict] | None, replies: list[int]
) -> tuple[str, list['Span']]:
    """Return the text of a conversation and the span of each of its `replies` (indices of messages).

    Raises:
        TemplateError: The span of a reply cannot be proven.
    """
    text = template.run(messages, tools)
    spans = []
    for index in replies:
        prompt = template.run(messages[:index], tools, prompt=True)
        if not text.startswith(prompt):
            raise _unproven(template, 'it renders a conversation differently from the prompt that inference uses')
        start, end = len(prompt), _end_of_reply(template, messages[: index + 1], tools, text, len(prompt))
        tag = _end_tag(template.end_tokens, text, end)
        if tag is None and index == replies[-1]:
            # Some templates close a last reply only when asked for the next prompt.
            longer = template.run(messages, tools, prompt=True)
            tag = _end_tag(template.end_tokens, longer, end) if longer.startswith(text) else None
            text = longer
            opens = tag and prompt.rstrip().endswith(longer[end : end + tag].strip())
            if opens or tag and not _ends_a_turn(template.end_tokens, longer[end + tag :]):
                tag = None  # it begins the next turn
        if tag is None:
            raise _unproven(template, 'no token ends a reply, so the model could not learn to stop')
        spans.append((start, end + tag))
    return text[: spans[-1][1]] + _tail(template.end_tokens, text[spans[-1][1] :]), spans


def _end_of_reply(
    template: 'ChatTemplate', messages: list[Message], tools: list[dict] | None, text: str, start: int
) -> int:
    """Return where the reply in the last of `messages`, which begins at `start`, ends in `text`."""
    message = messages[-1]
    if message.get('tool_calls'):
        # Tokens such as </tool_call>, and those in the data, stand before the one that ends the turn.
        shared = commonprefix([template.run(messages, tools), text])
        called = shared.find(message['tool_calls'][-1]['function']['name'], start)
        found = [(shared.rfind(tag), tag) for tag in template.end_tokens]
        ends = [(at + len(tag), at) for at, tag in found if at > called >= 0]
        if not ends:
            raise _unproven(template, 'it has no form for tool calls')
        return max(ends)[1]
    reply = message['content']
    if text.startswith(reply, start):
        return start + len(reply)
    stripped = reply.strip()
    at = start + len(text[start:]) - len(text[start:].lstrip())
    if text.startswith(stripped, at):
        return at + len(stripped)
    raise _unproven(template, 'it changes the text of replies')


def _end_tag(tags: tuple[str, ...], text: str, at: int) -> int | None:
    """Return how many characters an end tag, with space before it, takes at `at`."""
    gap = len(text[at:]) - len(text[at:].lstrip())
    for skip in (0, gap):
        for tag in tags:
            if text.startswith(tag, at + skip):
                return skip + len(tag)
    return None


def _ends_a_turn(tags: tuple[str, ...], rest: str) -> bool:
    return not rest.strip() or rest.lstrip().startswith(tags)


def _tail(tags: tuple[str, ...], tail: str) -> str:
    """Return what stands after the last reply, unless it is the head of a next turn that some templates always add."""
    rest = tail
    for tag in tags:
        rest = rest.replace(tag, '')
    return '' if rest.strip() else tail


def _unproven(template: 'ChatTemplate', why: str) -> TemplateError:
    return TemplateError(
        f'template `{template.name}` has no generation marks, and what it trains cannot be proven: {why}. '
        + closest(template)
    )
