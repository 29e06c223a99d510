"""Convert training sequences to readable tokens."""

from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..data.split import Split

# Tokens that may have to be decoded together: a character has up to four bytes, and tokens may end inside it.
_GROUP = 16
_REPLACEMENT = '\ufffd'


@dataclass(frozen=True)
class Token:
    """A token, or several tokens that form complete characters only together.

    `kind` is 'text', 'special' (a special token) or 'part': a part of a character that was cut off, or a token without
    text, in which case `text` is its name in the vocabulary. `trained`: the (last) token is a target.
    """

    text: str
    ids: tuple[int, ...]
    trained: bool
    kind: str = 'text'


@dataclass(frozen=True)
class Segment:
    """The tokens [first, end) of a sample of `total` tokens from the row at `place`; `trained` of them are targets."""

    place: str
    first: int
    end: int
    total: int
    trained: int
    tokens: list[Token]

    @property
    def title(self) -> str:
        """The place, and the range of tokens if the sample is split."""
        cut = (self.first, self.end) != (0, self.total)
        return f'{self.place}, tokens {self.first + 1}-{self.end} of {self.total}' if cut else self.place


@dataclass(frozen=True)
class Sequence:
    """One training sequence; `number` counts from 1."""

    number: int
    segments: list[Segment]

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return sum(segment.end - segment.first for segment in self.segments)

    @property
    def trained(self) -> int:
        """Number of trained tokens."""
        return sum(segment.trained for segment in self.segments)


class Viewer:
    """Converts training sequences to readable tokens.

    Args:
        split: The sequences.
        tokenizer: The tokenizer that produced the ids.
    """

    def __init__(self, split: Split, tokenizer: PreTrainedTokenizerBase) -> None:
        self.split, self.tokenizer = split, tokenizer
        added = tokenizer.added_tokens_decoder.items()
        self._special = set(tokenizer.all_special_ids) | {i for i, token in added if token.special}
        # The data may contain U+FFFD itself, where another program damaged the text.
        self._damaged = tokenizer(_REPLACEMENT, add_special_tokens=False)['input_ids'][-1:]
        self._texts: dict[tuple[int, ...], str] = {}

    def sequence(self, index: int) -> Sequence:
        """Return sequence `index`, counted from 0."""
        segments, at, store = [], 0, self.split.store
        for sample, first, end in self.split.sequences[index].tolist():
            ids = store.ids(sample).tolist()
            trained = np.zeros(len(ids), dtype=bool)
            for start, stop in store.spans(sample).tolist():
                trained[start:stop] = True
            if not (self.split.sequences.concatenated and at):
                trained[0] = False  # no token before it predicts it
            tokens = self._tokens(ids, trained.tolist(), first, end)
            count = int(trained[first:end].sum())
            segments.append(Segment(store.place(sample), first, end, len(ids), count, tokens))
            at += end - first
        return Sequence(index + 1, segments)

    def _tokens(self, ids: list[int], trained: list[bool], first: int, end: int) -> list[Token]:
        tokens, at = [], first
        before = ids[max(first - 2, 0) : first]
        while at < end:
            token = self._token(ids, trained, at, end, before)
            before = [] if token.kind == 'part' else list(token.ids)
            at += len(token.ids)
            tokens.append(token)
        return tokens

    def _token(self, ids: list[int], trained: list[bool], at: int, end: int, before: list[int]) -> Token:
        """Return the token at `at`, with the following tokens that complete its last character."""
        first = ids[at]
        if first in self._special:
            return Token(self._name(first), (first,), trained[at], 'special')
        for stop in range(at + 1, min(at + _GROUP, end) + 1):
            if ids[stop - 1] in self._special:
                break
            text = self._text(before, ids[at:stop])
            if text and (_REPLACEMENT not in text or [first] == self._damaged):
                return Token(text, tuple(ids[at:stop]), trained[stop - 1])
        return Token(self._name(first), (first,), trained[at], 'part')

    def _text(self, before: list[int], ids: list[int]) -> str:
        """Return the text of `ids` after `before`: some tokenizers drop a space at the start of a text."""
        context, full_text = self._decoded(before), self._decoded(before + ids)
        return full_text[len(context) :] if full_text.startswith(context) else self._decoded(ids)

    def _decoded(self, ids: list[int]) -> str:
        key = tuple(ids)
        if key not in self._texts:
            self._texts[key] = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return self._texts[key]

    def _name(self, token_id: int) -> str:
        return self.tokenizer.convert_ids_to_tokens(token_id) or f'token {token_id}'
