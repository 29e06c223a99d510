"""Which token ends a reply: found by encoding a conversation, and required to be one token."""

from transformers import PreTrainedTokenizerBase

from ..errors import TemplateError
from ..templates.template import ChatTemplate
from .conversation import exchange
from .encode import Encoder

_PROBE = 'Fine 7'


def stop_ids(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate) -> list[int]:
    """Return the ids at which generation must stop: the template's end of turn first, then the tokenizer's eos.

    Raises:
        TemplateError: The end of turn is several tokens, so a model trained with it would not stop.
    """
    messages = exchange('How are you?', _PROBE)
    text, spans = template.render(messages)
    tag = text[text.rindex(_PROBE, *spans[-1]) + len(_PROBE) : spans[-1][1]]
    sample = Encoder(tokenizer, template, max_length=1 << 20, overlong='error')(messages)[0]
    last = int(sample.ids[sample.spans[-1][1] - 1])
    if not tag or tokenizer.decode([last]).strip() != tag.strip():
        count = len(tokenizer(tag, add_special_tokens=False)['input_ids']) if tag else 0
        raise TemplateError(
            f'template `{template.name}` ends a reply with {tag!r}, which is {count} tokens for this tokenizer and not '
            "one: the model could not be told to stop there. Take template='auto', 'plain', or the model's own format."
        )
    eos = tokenizer.eos_token_id
    return [last] if eos is None or eos == last else [last, eos]
