"""The tokens that end an assistant message: found by encoding a conversation; each must be a single token."""

from ..errors import TemplateError
from ..messages import Conversation, RowError, exchange
from ..templates.template_tokens import suggestions
from .chat_tokenizer import ChatTokenizer, RenderedConversation

_PROBES = ('Fine 7', 'Good 8')


def stop_token_ids(chat_tokenizer: ChatTokenizer) -> list[int]:
    """Return the ids at which generation must stop: the ends of the last message, an earlier one, a tool call; eos.

    An eos that the template writes between two messages without ending the first is left out: it starts a turn. The
    tokenizer then has a wrong eos, as in files converted from GGUF.

    Raises:
        TemplateError: The stop token is several tokens, so a model trained with it would not stop; or the template
            changes the text of assistant messages, or refuses a conversation of two exchanges.
    """
    tokenizer, template = chat_tokenizer.tokenizer, chat_tokenizer.template
    messages = exchange('How are you?', _PROBES[0]) + exchange('And you?', _PROBES[1])
    rendered = RenderedConversation(*template.render(messages))
    [(ids, turns)] = chat_tokenizer.tokenize([rendered])
    stop_ids = []
    for probe, span, (_, end) in zip(_PROBES, rendered.spans, turns, strict=True):
        message = rendered.text[slice(*span)]
        _, found, suffix = message.rpartition(probe)
        if not found:
            raise TemplateError(
                f'template `{template.name}` changes the text of assistant messages: {probe!r} became {message!r}'
            )
        if not _is_stop_token(chat_tokenizer, ids[end - 1], suffix):
            raise _refusal(chat_tokenizer, suffix)
        stop_ids.insert(0, ids[end - 1])
    stop_ids += _tool_call_end(chat_tokenizer)
    eos, (_, end), (start, _) = tokenizer.eos_token_id, *turns
    eos_starts_a_turn = eos in ids[end:start]
    return list(dict.fromkeys(stop_ids if eos is None or eos_starts_a_turn else [*stop_ids, eos]))


def _is_stop_token(chat_tokenizer: ChatTokenizer, token_id: int, suffix: str) -> bool:
    """Tell whether the last token of a message is all of `suffix`, the text after the message's content."""
    tokenizer = chat_tokenizer.tokenizer
    ends_in_eos = token_id == tokenizer.eos_token_id and suffix.endswith(tokenizer.eos_token)
    text = tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
    return bool(suffix.strip()) and (ends_in_eos or text.strip() == suffix.strip())


def _refusal(chat_tokenizer: ChatTokenizer, suffix: str) -> TemplateError:
    tokenizer, template = chat_tokenizer.tokenizer, chat_tokenizer.template
    count = len(tokenizer(suffix, add_special_tokens=False)['input_ids']) if suffix else 0
    reason = 'also occurs in ordinary text' if count == 1 else f'is {count} tokens in this tokenizer, not one'
    own = "chat_template='auto', the model's own, or " if tokenizer.chat_template else ''
    return TemplateError(
        f'template `{template.name}` ends a message with {suffix!r}, which {reason}: it cannot be used as a stop '
        f'token. Use {own}one that fits this tokenizer: {suggestions(template.end_tokens)}.'
    )


def _tool_call_end(chat_tokenizer: ChatTokenizer) -> list[int]:
    """Return the token that ends a message with a tool call, if the template supports them."""
    call = {'type': 'function', 'function': {'name': 'look', 'arguments': {}}}
    messages = [
        {'role': 'user', 'content': 'How are you?'},
        {'role': 'assistant', 'content': '', 'tool_calls': [call]},
        {'role': 'tool', 'content': 'Fine'},
        {'role': 'assistant', 'content': 'Fine'},
    ]
    tools = [{'type': 'function', 'function': {'name': 'look', 'description': 'Look.', 'parameters': {}}}]
    try:
        [(ids, turns)] = chat_tokenizer.tokenize([chat_tokenizer.render(Conversation(messages, tools))])
    except RowError:
        return []
    last = ids[turns[0][1] - 1]
    return [last] if last in chat_tokenizer.tokenizer.added_tokens_decoder else []
