"""Special-token text inside data, such as a user who writes about `<|im_end|>`, stays ordinary text.

A template writes special tokens as text, and so can a row: without escaping, the tokenizer could not tell them apart,
and data could end a turn or open a system message. Such text is therefore wrapped in two private-use characters before
the template renders it, and tokenized separately, as the ordinary characters it is:

    user content   what does <|im_end|> mean?
    rendered       <|im_start|>user\nwhat does [<|im_end|>] mean?<|im_end|>\n...      [ ]: the two characters
    tokens         special ......... text .... text ...... text  special
"""

import re
from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..messages import Conversation, RowError
from ..templates.template import ChatTemplate

BEGIN, END = '\ue0f0', '\ue0f1'
_ESCAPES = re.compile(f'{BEGIN}([^{BEGIN}{END}]*){END}|[{BEGIN}{END}]')


class SpecialTokens:
    """Find and escape the text of a tokenizer's special tokens.

    Added tokens that are not special (`<think>`, `<tool_call>` of many models) are not escaped: data contain them on
    purpose.

    Args:
        tokenizer: The tokenizer with the special tokens.
        mode: 'text' and 'auto' escape them; 'parse' encodes them as special tokens; 'error' refuses the row.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, mode: str) -> None:
        self.mode = mode
        special = {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
        special |= set(tokenizer.all_special_tokens)
        self.texts = sorted(filter(None, special), key=len, reverse=True)
        self._special = re.compile('|'.join(map(re.escape, self.texts)) or '(?!)')
        self._to_escape = re.compile('|'.join([*map(re.escape, self.texts), BEGIN, END]))

    def occurs_in(self, text: str) -> bool:
        """Tell whether `text` contains the text of a special token."""
        return bool(self._special.search(text))

    def escape(self, conversation: Conversation) -> Conversation:
        """Return `conversation` with special-token text escaped, or unchanged if there is none.

        Raises:
            RowError: There is special-token text, and `mode` is 'error'.
        """
        if self.mode == 'parse':
            return conversation
        # No token contains NUL, so none is found across two strings.
        if not self._to_escape.search('\0'.join(strings_in([conversation.messages, conversation.tools]))):
            return conversation
        if self.mode == 'error':
            raise RowError('special token in the text', self._first_occurrence(conversation))
        messages = [{**self._escaped(message), 'role': message['role']} for message in conversation.messages]
        return Conversation(messages, self._escaped(conversation.tools))

    def _first_occurrence(self, conversation: Conversation) -> str:
        for text in strings_in([conversation.messages, conversation.tools]):
            if match := self._special.search(text):
                return f'{match.group()!r} in {text[max(match.start() - 20, 0) : match.end() + 20]!r}'
        return 'a private-use character that xtune uses for escaping'

    def _escaped(self, value: Any) -> Any:
        if isinstance(value, str):
            clean = value.replace(BEGIN, '').replace(END, '')  # data must not be able to forge an escape
            return self._special.sub(lambda match: f'{BEGIN}{match.group()}{END}', clean)
        if isinstance(value, dict):
            return {self._escaped(key): self._escaped(item) for key, item in value.items()}
        return [self._escaped(item) for item in value] if isinstance(value, (list, tuple)) else value


def split_escaped(text: str, start: int, end: int) -> Iterator[tuple[str, bool]]:
    """Yield the segments of `text[start:end]`, and whether each is special-token text to encode as ordinary text."""
    at = start
    for match in _ESCAPES.finditer(text, start, end):
        if match.start() > at:
            yield text[at : match.start()], False
        if match.group(1):
            yield match.group(1), True
        at = match.end()
    if at < end:
        yield text[at:end], False


def strip_bos_eos(text: str, template: ChatTemplate) -> str:
    """Return `text` without the bos and eos token at its ends that `template`, which is `plain`, adds itself."""
    bos, eos = (template.variables.get(name) or '' for name in ('bos_token', 'eos_token'))
    return text.removeprefix(bos if 'bos_token' in template.source else '').removesuffix(eos)


def is_escaped(text: str) -> bool:
    """Tell whether rendered `text` contains escaped special-token text."""
    return BEGIN in text or END in text


def strings_in(value: Any) -> list[str]:
    """Return every string in `value`, dict keys included: the model also reads the names of a tool's arguments."""
    strings, stack = [], [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            strings.append(item)
        elif isinstance(item, dict):
            stack += [*reversed(item.values()), *reversed(item)]
        elif isinstance(item, (list, tuple)):
            stack += reversed(item)
    return strings
