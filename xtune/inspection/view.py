"""Training sequences as readable tokens."""

from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..data.split import Split

# Tokens decoded together at most: a character has up to four bytes, and tokens may begin and end inside one.
_MAX_GROUP = 16
_REPLACEMENT = '\ufffd'


@dataclass(frozen=True)
class Token:
    """A token, or several that only together are complete characters.

    Attributes:
        text: The decoded text, or for 'special' and 'part' the name in the vocabulary.
        ids: Token ids.
        trained: The token, or the last of several, gets a loss.
        kind: 'text', 'special', or 'part': a part of a character that was cut, or a token without text.
    """

    text: str
    ids: tuple[int, ...]
    trained: bool
    kind: str = 'text'


@dataclass(frozen=True)
class SampleView:
    """The tokens of one sample in a sequence.

    Attributes:
        place: File and row number.
        first, end: Token range [first, end) of the sample.
        total: Tokens of the full sample.
        trained: Tokens of the range that get a loss.
        tokens: The readable tokens.
    """

    place: str
    first: int
    end: int
    total: int
    trained: int
    tokens: list[Token]

    @property
    def title(self) -> str:
        """The place, and the token range if the sample is cut."""
        is_cut = (self.first, self.end) != (0, self.total)
        return f'{self.place}, tokens {self.first + 1}-{self.end} of {self.total}' if is_cut else self.place


@dataclass(frozen=True)
class Sequence:
    """One training sequence; `number` counts from 1."""

    number: int
    samples: list[SampleView]

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return sum(sample.end - sample.first for sample in self.samples)

    @property
    def trained(self) -> int:
        """Number of tokens that get a loss."""
        return sum(sample.trained for sample in self.samples)


class Viewer:
    """Convert training sequences to readable tokens.

    Args:
        split: The sequences.
        tokenizer: The tokenizer of the run.
    """

    def __init__(self, split: Split, tokenizer: PreTrainedTokenizerBase) -> None:
        self.split, self.tokenizer = split, tokenizer
        added = tokenizer.added_tokens_decoder.items()
        self._special = set(tokenizer.all_special_ids) | {i for i, token in added if token.special}
        # U+FFFD may also be in the data themselves, if their text was damaged before.
        self._damaged = tokenizer(_REPLACEMENT, add_special_tokens=False)['input_ids'][-1:]
        self._texts: dict[tuple[int, ...], str] = {}

    def sequence(self, index: int) -> Sequence:
        """Return sequence `index`, counted from 0."""
        samples, at, store = [], 0, self.split.store
        for index_of_sample, first, end in self.split.sequences[index].tolist():
            ids = store.ids(index_of_sample).tolist()
            trained = np.zeros(len(ids), dtype=bool)
            for start, stop in store.spans(index_of_sample).tolist():
                trained[start:stop] = True
            if not (self.split.sequences.concatenated and at):
                trained[0] = False  # there is no token before it to predict it
            tokens = self._tokens(ids, trained.tolist(), first, end)
            count = int(trained[first:end].sum())
            samples.append(SampleView(store.place(index_of_sample), first, end, len(ids), count, tokens))
            at += end - first
        return Sequence(index + 1, samples)

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
        for stop in range(at + 1, min(at + _MAX_GROUP, end) + 1):
            if ids[stop - 1] in self._special:
                break
            text = self._text(before, ids[at:stop])
            if text and (_REPLACEMENT not in text or [first] == self._damaged):
                return Token(text, tuple(ids[at:stop]), trained[stop - 1])
        return Token(self._name(first), (first,), trained[at], 'part')

    def _text(self, before: list[int], ids: list[int]) -> str:
        """Return the text of `ids` after `before`: some tokenizers drop a space at the beginning of a text."""
        context, full = self._decoded(before), self._decoded(before + ids)
        return full[len(context) :] if full.startswith(context) else self._decoded(ids)

    def _decoded(self, ids: list[int]) -> str:
        key = tuple(ids)
        if key not in self._texts:
            self._texts[key] = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return self._texts[key]

    def _name(self, token_id: int) -> str:
        return self.tokenizer.convert_ids_to_tokens(token_id) or f'token {token_id}'
