"""Find the trained spans of a template without `{% generation %}` blocks by comparing rendered prefixes.

    render(messages[:i], add_generation_prompt=True)   <|user|>Hi<|end|><|assistant|>
    render(messages)                                   <|user|>Hi<|end|><|assistant|>Hello!<|end|>...
                                                       ------- equal ---------->[trained     ]

The text before an assistant message must equal the inference prompt, its content must follow unchanged, and a stop
token must follow the content. Everything else is refused: a model trained on it would not stop, or would see another
prompt at inference.
"""

from os.path import commonprefix

from ..messages import Message
from .rendering import RenderFunction, Span


class SpanError(ValueError):
    """The trained span of an assistant message cannot be determined."""


def spans_from_prefixes(
    render: RenderFunction,
    end_tokens: tuple[str, ...],
    messages: list[Message],
    tools: list[dict] | None,
    targets: list[int],
) -> tuple[str, list[Span]]:
    """Return the text of a conversation and the characters of each assistant message with its stop token.

    Args:
        render: Renders the template.
        end_tokens: Tokens that may end a turn.
        messages: The conversation.
        tools: JSON schemas of the tools.
        targets: Indices of the assistant messages.

    Raises:
        SpanError: A span cannot be determined.
        TemplateError: The template refuses the conversation or a prefix of it.
    """
    text = render(messages, tools)
    spans = []
    for index in targets:
        prompt = render(messages[:index], tools, add_generation_prompt=True)
        if not text.startswith(prompt):
            raise SpanError('the text before an assistant message differs from the inference prompt')
        start = len(prompt)
        end = _end_of_content(render, end_tokens, messages[: index + 1], tools, text, start)
        tag_length = _end_tag_length(end_tokens, text, end)
        if tag_length is None and index == targets[-1]:
            # Some templates end the last assistant message only with add_generation_prompt.
            longer = render(messages, tools, add_generation_prompt=True)
            tag_length = _closing_tag_length(end_tokens, text, longer, end, prompt)
            text = longer
        if tag_length is None:
            raise SpanError('no token ends an assistant message, so the model could not learn to stop')
        spans.append((start, end + tag_length))
    end = spans[-1][1]
    return text[:end] + _closing_text(end_tokens, text[end:]), spans


def _closing_tag_length(end_tokens: tuple[str, ...], text: str, longer: str, end: int, prompt: str) -> int | None:
    """Return the length of the end tag at `end` of `longer`, the text with the next prompt, if it ends the turn."""
    length = _end_tag_length(end_tokens, longer, end) if longer.startswith(text) else None
    if not length:
        return length
    opens_next_turn = prompt.rstrip().endswith(longer[end : end + length].strip())
    return None if opens_next_turn or not _is_turn_end(end_tokens, longer[end + length :]) else length


def _end_of_content(
    render: RenderFunction,
    end_tokens: tuple[str, ...],
    messages: list[Message],
    tools: list[dict] | None,
    text: str,
    start: int,
) -> int:
    """Return where the content of the last of `messages`, which begins at `start`, ends in `text`."""
    message = messages[-1]
    if message.get('tool_calls'):
        # Tokens such as </tool_call>, and tokens in the data, precede the token that ends the turn.
        shared = commonprefix([render(messages, tools), text])
        last_call = shared.find(message['tool_calls'][-1]['function']['name'], start)
        tags = [(shared.rfind(tag), tag) for tag in end_tokens]
        ends = [(position + len(tag), position) for position, tag in tags if position > last_call >= 0]
        if not ends:
            raise SpanError('it does not support tool calls')
        return max(ends)[1]
    content = message['content']
    if text.startswith(content, start):
        return start + len(content)
    stripped = content.strip()
    first = start + len(text[start:]) - len(text[start:].lstrip())
    if text.startswith(stripped, first):
        return first + len(stripped)
    raise SpanError('it changes the content of assistant messages')


def _end_tag_length(tags: tuple[str, ...], text: str, position: int) -> int | None:
    """Return the number of characters of an end tag at `position`, whitespace before it included."""
    whitespace = len(text[position:]) - len(text[position:].lstrip())
    for skip in (0, whitespace):
        for tag in tags:
            if text.startswith(tag, position + skip):
                return skip + len(tag)
    return None


def _is_turn_end(tags: tuple[str, ...], rest: str) -> bool:
    return not rest.strip() or rest.lstrip().startswith(tags)


def _closing_text(tags: tuple[str, ...], rest: str) -> str:
    """Return the text after the last assistant message, '' if it opens a next turn, which some templates always add."""
    without_tags = rest
    for tag in tags:
        without_tags = without_tags.replace(tag, '')
    return '' if without_tags.strip() else rest
