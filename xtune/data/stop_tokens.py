"""Which tokens end a reply: found by encoding a conversation, and each required to be one token."""

from ..errors import TemplateError
from ..messages import Conversation, RowError, exchange
from ..templates.template_tokens import suggested
from .tokenise import Rendered, Tokeniser

_PROBES = ('Fine 7', 'Good 8')


def stop_ids(tokeniser: Tokeniser) -> list[int]:
    """Return the ids at which generation must stop: what ends a last reply, an earlier one, a tool call; the eos.

    An eos that the template writes between two replies without ending one is left out: it opens a turn. The tokenizer
    names it wrongly then, as files made from a GGUF may do.

    Raises:
        TemplateError: An end of turn is several tokens, so a model trained with it would not stop; or the template
            changes replies, or refuses a conversation of two exchanges.
    """
    tokenizer, template = tokeniser.tokenizer, tokeniser.template
    messages = exchange('How are you?', _PROBES[0]) + exchange('And you?', _PROBES[1])
    rendered = Rendered(*template.render(messages))
    [(ids, turns)] = tokeniser.tokenise([rendered])
    stops = []
    for probe, span, (_, end) in zip(_PROBES, rendered.spans, turns, strict=True):
        reply = rendered.text[slice(*span)]
        _, found, tag = reply.rpartition(probe)
        if not found:
            raise TemplateError(f'template `{template.name}` changes the text of replies: {probe!r} became {reply!r}')
        last = ids[end - 1]
        ends_in_eos = last == tokenizer.eos_token_id and tag.endswith(tokenizer.eos_token)
        text = tokenizer.decode([last], clean_up_tokenization_spaces=False)
        if not tag.strip() or not (ends_in_eos or text.strip() == tag.strip()):
            count = len(tokenizer(tag, add_special_tokens=False)['input_ids']) if tag else 0
            several = f'is {count} tokens for this tokenizer and not one'
            fault = 'stands in the text of replies too' if count == 1 else several
            raise TemplateError(
                f'template `{template.name}` ends a reply with {tag!r}, which {fault}: the model could not be told to '
                f'stop there. Take {_others(tokeniser)}.'
            )
        stops.insert(0, last)
    stops += _end_of_call(tokeniser)
    eos, (_, end), (start, _) = tokenizer.eos_token_id, *turns
    opens_a_turn = eos in ids[end:start]
    return list(dict.fromkeys(stops if eos is None or opens_a_turn else [*stops, eos]))


def _others(tokeniser: Tokeniser) -> str:
    """Return what to take instead of a template whose end of turn is no token."""
    own = "chat_template='auto', the model's own, or " if tokeniser.tokenizer.chat_template else ''
    return f'{own}one that fits this tokenizer: {suggested(tokeniser.template.end_tokens)}'


def _end_of_call(tokeniser: Tokeniser) -> list[int]:
    """Return what ends a reply that calls a tool, if the template has a form for it."""
    call = {'type': 'function', 'function': {'name': 'look', 'arguments': {}}}
    messages = [
        {'role': 'user', 'content': 'How are you?'},
        {'role': 'assistant', 'content': '', 'tool_calls': [call]},
        {'role': 'tool', 'content': 'Fine'},
        {'role': 'assistant', 'content': 'Fine'},
    ]
    tools = [{'type': 'function', 'function': {'name': 'look', 'description': 'Look.', 'parameters': {}}}]
    try:
        [(ids, turns)] = tokeniser.tokenise([tokeniser.render(Conversation(messages, tools))])
    except RowError:
        return []
    last = ids[turns[0][1] - 1]
    return [last] if last in tokeniser.tokenizer.added_tokens_decoder else []
