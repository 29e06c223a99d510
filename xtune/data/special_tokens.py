"""Special-token text inside data, such as a user who writes about `<|im_end|>`, and how it stays text.

A template writes control tokens as text, and so could a row: unguarded, the tokenizer cannot tell them apart, and data
could end a turn or open a system message. So such text is wrapped in two private-use characters before the template
renders it, and encoded apart from the rest, as the ordinary characters it is:

    user content   what does <|im_end|> mean?
    rendered       <|im_start|>user\nwhat does [<|im_end|>] mean?<|im_end|>\n...      [ ]: the two characters
    tokens         control ......... text .... text ...... text  control
"""

import re
from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..messages import Conversation, RowError
from ..templates.template import ChatTemplate

BEGIN, END = '\ue0f0', '\ue0f1'
_MARKS = re.compile(f'{BEGIN}([^{BEGIN}{END}]*){END}|[{BEGIN}{END}]')


class ControlTokens:
    """Finds and marks the text of a tokenizer's special tokens.

    Tokens that are added but not special (`<think>`, `<tool_call>` of many models) are left alone: data writes them on
    purpose.

    Args:
        tokenizer: Its special tokens are looked for.
        mode: 'text' and 'auto' mark them; 'parse' lets them become control tokens; 'error' refuses the row.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, mode: str) -> None:
        self.mode = mode
        specials = {t.content for t in tokenizer.added_tokens_decoder.values() if t.special} | set(
            tokenizer.all_special_tokens
        )
        self.texts = sorted(filter(None, specials), key=len, reverse=True)
        self._special = re.compile('|'.join(map(re.escape, self.texts)) or '(?!)')
        self._risky = re.compile('|'.join([*map(re.escape, self.texts), BEGIN, END]))

    def is_special(self, text: str) -> bool:
        """Tell whether `text` holds the text of a special token."""
        return bool(self._special.search(text))

    def guarded(self, conversation: Conversation) -> Conversation:
        """Return `conversation` with special-token text marked; itself if there is none.

        Raises:
            RowError: There is some, and `mode` is 'error'.
        """
        if self.mode == 'parse':
            return conversation
        # No token has a NUL in it, so none is found across two texts.
        if not self._risky.search('\0'.join(all_texts([conversation.messages, conversation.tools]))):
            return conversation
        if self.mode == 'error':
            raise RowError('special token in the text', self._first(conversation))
        messages = [{**self._marked(message), 'role': message['role']} for message in conversation.messages]
        return Conversation(messages, self._marked(conversation.tools))

    def _first(self, conversation: Conversation) -> str:
        for text in all_texts([conversation.messages, conversation.tools]):
            if found := self._special.search(text):
                return f'{found.group()!r} in {text[max(found.start() - 20, 0) : found.end() + 20]!r}'
        return 'a private-use character that xtune marks them with'

    def _marked(self, value: Any) -> Any:
        if isinstance(value, str):
            clean = value.replace(BEGIN, '').replace(END, '')  # or data could forge a mark
            return self._special.sub(lambda found: f'{BEGIN}{found.group()}{END}', clean)
        if isinstance(value, dict):
            return {self._marked(key): self._marked(item) for key, item in value.items()}
        return [self._marked(item) for item in value] if isinstance(value, (list, tuple)) else value


def pieces(text: str, start: int, end: int) -> Iterator[tuple[str, bool]]:
    """Yield the pieces of `text[start:end]` and whether each is special-token text to encode as ordinary text."""
    at = start
    for mark in _MARKS.finditer(text, start, end):
        if mark.start() > at:
            yield text[at : mark.start()], False
        if mark.group(1):
            yield mark.group(1), True
        at = mark.end()
    if at < end:
        yield text[at:end], False


def without_ends(text: str, template: ChatTemplate) -> str:
    """Return `text` without the bos and eos token around it that `template`, which is `plain`, adds by itself."""
    bos, eos = (template.variables.get(name) or '' for name in ('bos_token', 'eos_token'))
    return text.removeprefix(bos if 'bos_token' in template.source else '').removesuffix(eos)


def is_marked(text: str) -> bool:
    """Tell whether `text` holds marks."""
    return BEGIN in text or END in text


def all_texts(value: Any) -> list[str]:
    """Return every string in `value`, names too: the model also reads those of a tool's arguments."""
    found, left = [], [value]
    while left:
        item = left.pop()
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, dict):
            left += [*reversed(item.values()), *reversed(item)]
        elif isinstance(item, (list, tuple)):
            left += reversed(item)
    return found
