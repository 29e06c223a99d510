"""Conversations -> samples of at most `max_length` tokens with the spans that get a loss."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np

from ..errors import DataError
from ..messages import REPLIES, Conversation, Message, RowError, Tokens, is_trained
from ..templates.template import Span
from ..utils.visible import shortened
from . import reasoning
from .special_tokens import is_marked, without_ends
from .tokenise import Rendered, Tokenised, Tokeniser

AS_TEXT = 'of plain text, in the template `plain`'
QUOTED = 'with the text of special tokens, which stays text (control_tokens)'


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
        plain: Renders rows of plain text, if `tokeniser` has a template of roles; None refuses them.

    Attributes:
        notes: How often rows were changed or left out for their length, since it was cleared.
        remarks: What else is to be said of conversations of the last call, by their index.
        left_out: What of conversations of the last call is not used, by their index: names, and what stands there.
        too_long: Tokens of the samples of the last call that could not be used, or were dropped, for their length.
    """

    def __init__(
        self,
        tokeniser: Tokeniser,
        max_length: int,
        overlong: str,
        train_on: str = 'all_replies',
        plain: Tokeniser | None = None,
    ) -> None:
        self.tokeniser, self.max_length, self.overlong, self.train_on = tokeniser, max_length, overlong, train_on
        self.vocabulary = len(tokeniser.tokenizer)
        self.plain = plain
        self.notes: Counter = Counter()
        self.remarks: dict[int, list[str]] = {}
        self.left_out: dict[int, list[tuple[str, str]]] = {}
        self.too_long: list[int] = []

    def __call__(self, conversations: Sequence[Conversation | Tokens]) -> list[list[Sample] | Exception]:
        """Return for each conversation its samples (one, several if it is split, none if it is dropped), or why not.

        The reason is a `RowError`, or a `DataError` if the row is too long and `overlong` is 'error'.
        """
        results: list = [None] * len(conversations)
        parts: list[tuple[int, Conversation, Rendered]] = []
        self.remarks, self.left_out, self.too_long = {}, {}, []
        for i, given in enumerate(conversations):
            try:
                if isinstance(given, Tokens):
                    results[i] = self._fitted(given, self._given(given))
                else:
                    own = [(i, part, self._rendered(part)) for part in self._parts(i, given)]
                    parts += own
                    if remarks := self._remarks(given, own[0][-1]):
                        self.remarks.setdefault(i, []).extend(remarks)
            except (RowError, DataError) as error:
                results[i] = error
        pairs = zip(parts, self.tokeniser.tokenise([rendered for *_, rendered in parts]), strict=True)
        for i, group in groupby(pairs, lambda pair: pair[0][0]):
            try:
                samples = [(part, self._sample(part.messages, tokenised)) for (_, part, _), tokenised in group]
                results[i] = self._fitted(*samples[0]) if len(samples) == 1 else self._all_fitted(samples)
            except (RowError, DataError) as error:
                results[i] = error
        return results

    def identity(self) -> tuple:
        """Return everything a sample depends on besides the conversation."""
        tokeniser = self.tokeniser
        plain = self.plain.template.source if self.plain else None
        return tokeniser.identity(), plain, self.max_length, self.overlong, self.train_on

    def encode(self, conversation: Conversation) -> Sample:
        """Return `conversation` as one sample of any length.

        Raises:
            RowError: The template refuses it.
        """
        [tokenised] = self.tokeniser.tokenise([self._rendered(conversation)])
        return self._sample(conversation.messages, tokenised)

    def _rendered(self, conversation: Conversation) -> Rendered:
        if conversation.messages[0]['role'] != 'text':
            return self.tokeniser.render(conversation)
        name = self.tokeniser.template.name
        chosen = self.tokeniser if name == 'plain' else self.plain
        if chosen is None:
            raise RowError(
                "plain text needs chat_template='plain', as the pretraining presets set it", f'it is `{name}`'
            )
        if chosen.control.mode == 'parse':  # what the text begins and ends with already is not written twice
            text = without_ends(conversation.messages[0]['content'], chosen.template)
            conversation = Conversation([{'role': 'text', 'content': text}], notes=conversation.notes)
        return chosen.render(conversation)

    def _parts(self, index: int, given: Conversation) -> list[Conversation]:
        """Return what a conversation becomes a sample of: itself, or parts that each end in a thought and its reply."""
        template = self.tokeniser.template
        if given.messages[0]['role'] == 'text':
            return [given]
        if not (template.takes_thoughts or template.reads_tags):
            for number, message in enumerate(given.messages, 1):
                if message['role'] == 'assistant':
                    reasoning.check_closed(message, f'message {number}')
            return [given]
        made = reasoning.samples(given, template, self.tokeniser.keeps_tags, self.train_on == 'last_reply')
        if made.remarks:
            self.remarks[index] = made.remarks
        if made.left_out:
            self.left_out[index] = [(reasoning.LEFT_OUT, shortened(made.left_out))]
        return made.parts

    def _remarks(self, conversation: Conversation, rendered: Rendered) -> list[str]:
        is_text = self.plain is not None and conversation.messages[0]['role'] == 'text'
        return [AS_TEXT] * is_text + [QUOTED] * is_marked(rendered.text)

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

    def _all_fitted(self, parts: list[tuple[Conversation, Sample]]) -> list[Sample]:
        from .overlong import all_fitted

        return all_fitted(self, parts)
