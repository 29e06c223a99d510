r"""Rendered conversations -> token ids and the token spans of replies, many at a time.

    text    <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n
    tokens  [.....................................................][.................][.]
    turns                                                            the reply + its end of turn

Tokens come from the rendered text without special tokens added a second time. Spans are decided by position, never by
token value, so pad == eos cannot mask an end of turn.
"""

import json
from dataclasses import dataclass
from functools import cached_property

from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from ..errors import TemplateError
from ..messages import Conversation, Message, RowError
from ..templates.template import ChatTemplate, Span
from .reasoning import OPEN, remembered, require_all
from .special_tokens import ControlTokens, is_marked, pieces


@dataclass(frozen=True)
class Rendered:
    """Text of a conversation, special-token text of the data marked in it, and the characters of each reply."""

    text: str
    spans: list[Span]


Tokenised = tuple[list[int], list[Span]]


class Tokeniser:
    """Renders and tokenises conversations for training, and prompts for inference, the same way.

    Args:
        tokenizer: Its special tokens are not added to what the template writes.
        template: Renders a conversation and says which characters are replies.
        control_tokens: What special-token text in data becomes: 'text', 'auto' (the same), 'parse' or 'error'.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, control_tokens: str = 'text'):
        self.tokenizer, self.template = tokenizer, template
        self.control = ControlTokens(tokenizer, control_tokens)
        # Tokenizers that put a space before any text would put it before every piece of one, too.
        self._prefixes = self._ids('a') != self._ids('\na')[len(self._ids('\n')) :]
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._control = special.union(tokenizer.all_special_ids)
        self._added = tuple(sorted(tokenizer.get_added_vocab(), key=len, reverse=True))
        self._settled: dict[tuple[str, str], bool] = {}

    def identity(self) -> tuple:
        """Return everything that decides the tokens of a conversation."""
        backend = getattr(self.tokenizer, 'backend_tokenizer', None)
        vocabulary = backend.to_str() if backend is not None else json.dumps(self.tokenizer.get_vocab(), sort_keys=True)
        mode = 'text' if self.control.mode == 'auto' else self.control.mode  # the same tokens
        return self.template.source, sorted(self.template.variables.items()), mode, vocabulary

    @cached_property
    def keeps_tags(self) -> bool:
        """Whether the template reads thoughts in tags; not if tags in data become text, as they are special tokens."""
        return self.template.reads_tags and (self.control.mode == 'parse' or not self.control.is_special(OPEN))

    def render(self, conversation: Conversation) -> Rendered:
        """Return `conversation` as text.

        Raises:
            RowError: The template refuses it.
        """
        guarded = self.control.guarded(conversation)
        try:
            rendered = Rendered(*self.template.render(guarded.messages, guarded.tools))
        except TemplateError as error:
            raise RowError('the template refuses it', str(error)) from error
        require_all(guarded.messages, rendered.text)
        return rendered

    def tokenise(self, texts: list[Rendered]) -> list[Tokenised]:
        """Return token ids and the token span of each reply, for each of `texts`."""
        results: list[Tokenised | None] = [None] * len(texts)
        plain = [i for i, rendered in enumerate(texts) if not is_marked(rendered.text)]
        if self.tokenizer.is_fast and plain:
            self.tokenizer.backend_tokenizer.encode_special_tokens = False  # it keeps the setting of the last call
            encoded = self.tokenizer.backend_tokenizer.encode_batch(
                [texts[i].text for i in plain], add_special_tokens=False
            )
            for i, encoding in zip(plain, encoded, strict=True):
                text = texts[i].text
                turns = [self._is_settled(text, s[0]) and _token_span(encoding, s, text) for s in texts[i].spans]
                if all(turns):
                    results[i] = encoding.ids, turns
        # What is left: marks, no offsets, or a token that reaches over the border of a reply. Inference tokenises the
        # prompt alone, so there the pieces are encoded alone too.
        return [
            self._in_pieces(rendered) if done is None else done for rendered, done in zip(texts, results, strict=True)
        ]

    def prompt_ids(self, messages: list[Message], tools: list[dict] | None = None) -> list[int]:
        """Return the token ids that a model continues with its reply to `messages`.

        Raises:
            TemplateError: The template refuses the conversation.
            RowError: There is special-token text, and `control_tokens` is 'error'.
        """
        if self.template.takes_thoughts:
            messages = remembered(messages, self.keeps_tags)
        given = self.control.guarded(Conversation(messages, tools))
        text = self.template.prompt(given.messages, given.tools)
        [(ids, _)] = self.tokenise([Rendered(text, self._earlier_replies(given, text))])
        return ids

    def _earlier_replies(self, given: Conversation, prompt: str) -> list[Span]:
        """Return the characters of `prompt` that are replies: their borders are token borders, as in training."""
        if not any(m['role'] == 'assistant' for m in given.messages):
            return []
        messages = [{**m, 'train': False} if m['role'] == 'assistant' else m for m in given.messages]
        try:
            text, spans = self.template.render([*messages, {'role': 'assistant', 'content': '.'}], given.tools)
        except TemplateError:  # a template to chat with need not be one to train with
            return []
        return spans[:-1] if text.startswith(prompt) else []

    def _is_settled(self, text: str, start: int) -> bool:
        """Tell whether the space before a reply, if it is long, is split as it is at the end of a prompt."""
        head = text[max(start - 16, 0) : start]
        width = len(head) - len(head.rstrip())
        if width < 2:
            return True
        key = head[-width - 1 :], text[start]
        if key not in self._settled:
            alone = self._ids(key[0])
            self._settled[key] = self._ids(''.join(key))[: len(alone)] == alone
        return self._settled[key]

    def _in_pieces(self, rendered: Rendered) -> Tokenised:
        ids: list[int] = []
        turns, at = [], 0
        for start, end in rendered.spans:
            ids = self._piece_ids(rendered.text, at, start, ids)
            before = len(ids)
            ids = self._piece_ids(rendered.text, start, end, ids)
            turns.append((before, len(ids)))
            at = end
        return self._piece_ids(rendered.text, at, len(rendered.text), ids), turns

    def _piece_ids(self, text: str, start: int, end: int, before: list[int]) -> list[int]:
        """Return `before` and the ids of `text[start:end]` that follow it."""
        ids, head = list(before), text[:start]
        for piece, as_text in pieces(text, start, end):
            new = self._following_ids(piece, as_text, head) if ids and self._prefixes else self._ids(piece, as_text)
            if as_text and not self._control.isdisjoint(new):
                # Unigram models, and merges learned from such text, know special tokens as ordinary words, too.
                new = [i for character in piece for i in self._following_ids(character, True, '')]
            ids += new
            head = '' if as_text else piece
        return ids

    def _following_ids(self, piece: str, as_text: bool, head: str) -> list[int]:
        """Return the ids of a piece behind `head`, with a space before it only if the tokenizer puts one there."""
        # Some put it behind each added token, and none behind a line end.
        lead = '\n' if as_text else next((token for token in self._added if head.endswith(token)), '\n')
        ids, before = self._ids(lead + piece, as_text), self._ids(lead, as_text)
        return ids[len(before) :] if ids[: len(before)] == before else self._ids(piece, as_text)

    def _ids(self, text: str, as_text: bool = False) -> list[int]:
        # Asked for in both cases: a fast tokenizer keeps the setting of the last call.
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=as_text, verbose=False)['input_ids']


def _token_span(encoding: Encoding, span: Span, text: str) -> Span | None:
    """Return the tokens that make up the characters `span`, or None if a token reaches over its border.

    Asked character by character: the list of all offsets costs more than the few that are needed.
    """
    start, end = span
    # Space on both sides of the border (or before a word) may be one token, and offsets may leave space out.
    if text[start - 1 : start] == ' ' or (text[start - 1 : start].isspace() and text[start].isspace()):
        return None
    first, last = encoding.char_to_token(start), encoding.char_to_token(end - 1)
    if first is None or last is None or encoding.token_to_chars(first)[0] < start:
        return None
    stop, count = last + 1, len(encoding)
    while stop < count and (encoding.token_to_chars(stop) or span)[0] < end:  # bytes of one character
        stop += 1
    # A special token may swallow the space after it (rstrip): the overhang is then only space.
    reach = encoding.token_to_chars(stop - 1)[1]
    return None if reach > end and text[end:reach].strip() else (first, stop)
