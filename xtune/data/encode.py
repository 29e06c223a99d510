"""Conversations -> samples of at most `max_length` tokens with the spans that get a loss."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import DataError
from ..templates.template import Span
from .conversation import REPLIES, Conversation, Message, RowError, Tokens, is_trained
from .tokenise import Tokenised, Tokeniser


@dataclass
class Sample:
    """`ids` [S] and, in token positions, the end of each turn and the spans [start, end) that are trained."""

    ids: np.ndarray
    turns: list[Span]
    trained: list[bool]

    @cached_property
    def spans(self) -> list[Span]:
        """The spans that get a loss."""
        return [span for span, wanted in zip(self.turns, self.trained, strict=True) if wanted]


class Encoder:
    """Encodes conversations to samples.

    Args:
        tokeniser: Renders and tokenises.
        max_length: Tokens per sample.
        overlong: 'truncate', 'split', 'drop' or 'error'.
        train_on: 'all_replies' or 'last_reply'; messages that say `train: False` never get a loss.
    """

    def __init__(self, tokeniser: Tokeniser, max_length: int, overlong: str, train_on: str = 'all_replies') -> None:
        self.tokeniser, self.max_length, self.overlong, self.train_on = tokeniser, max_length, overlong, train_on
        self.vocabulary = len(tokeniser.tokenizer)
        self.notes: Counter = Counter()

    def __call__(self, conversations: Sequence[Conversation | Tokens]) -> list[list[Sample] | Exception]:
        """Return for each conversation its samples (one, several if it is split, none if it is dropped), or why not.

        The reason is a `RowError`, or a `DataError` if the row is too long and `overlong` is 'error'.
        """
        results: list = [None] * len(conversations)
        texts = {}
        for i, given in enumerate(conversations):
            try:
                if isinstance(given, Tokens):
                    results[i] = self._fitted(given, self._given(given))
                else:
                    texts[i] = self._rendered(given)
            except (RowError, DataError) as error:
                results[i] = error
        for i, tokenised in zip(texts, self.tokeniser.tokenise(list(texts.values())), strict=True):
            try:
                results[i] = self._fitted(conversations[i], self._sample(conversations[i].messages, tokenised))
            except (RowError, DataError) as error:
                results[i] = error
        return results

    def identity(self) -> tuple:
        """Return everything a sample depends on besides the conversation."""
        tokeniser = self.tokeniser
        return tokeniser.identity(), self.max_length, self.overlong, self.train_on

    def encode(self, conversation: Conversation) -> Sample:
        """Return `conversation` as one sample of any length.

        Raises:
            RowError: The template refuses it.
        """
        [tokenised] = self.tokeniser.tokenise([self._rendered(conversation)])
        return self._sample(conversation.messages, tokenised)

    def _rendered(self, conversation: Conversation):
        name = self.tokeniser.template.name
        if conversation.messages[0]['role'] == 'text' and name != 'plain':
            raise RowError("plain text needs template='plain', as the pretraining presets set it", f'it is `{name}`')
        return self.tokeniser.render(conversation)

    def _sample(self, messages: list[Message], tokenised: Tokenised) -> Sample:
        ids, turns = tokenised
        trained = [is_trained(m) for m in messages if m['role'] in REPLIES]
        if self.train_on == 'last_reply':
            trained[:-1] = [False] * (len(trained) - 1)
        return Sample(np.asarray(ids, dtype=np.int32), turns, trained)

    def _given(self, tokens: Tokens) -> Sample:
        ids = np.asarray(tokens.ids, dtype=np.int64)
        if ids.max() >= self.vocabulary:
            raise RowError('token id beyond the vocabulary', f'id {ids.max()}, the tokenizer has {self.vocabulary}')
        edges = np.flatnonzero(np.diff(np.concatenate([[0], tokens.trained, [0]]).astype(np.int8)))
        turns = [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]
        return Sample(ids.astype(np.int32), turns, [True] * len(turns))

    def _fitted(self, given: Conversation | Tokens, sample: Sample) -> list[Sample]:
        if not any(sample.trained):
            raise RowError('nothing to train on', 'the last reply says train: false')
        if len(sample.ids) <= self.max_length:
            return [sample]
        from .overlong import fitted

        return fitted(self, given, sample)
