"""Encode conversations as samples of at most `max_length` tokens, with the spans that get a loss."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import numpy as np

from ..errors import DataError
from ..messages import TRAINABLE_ROLES, Conversation, Message, RowError, Tokens, is_trained
from ..utils.visible import shortened
from . import reasoning
from .chat_tokenizer import ChatTokenizer, RenderedConversation, TokenizedConversation
from .overlong import LengthFitter
from .sample import Sample
from .special_tokens import is_escaped, strip_bos_eos

# Remarks of the report, after a count of rows.
PLAIN_TEXT = 'of plain text, rendered with the template `plain`'
ESCAPED = 'with special-token text, encoded as ordinary text (see control_tokens)'


class Encoder:
    """Encode conversations as samples.

    Args:
        chat_tokenizer: Renders and tokenizes.
        max_length: Tokens per sample.
        overlong: What to do with longer samples: 'truncate', 'split', 'drop' or 'error'.
        train_on: 'all_replies' or 'last_reply'; messages with `train: False` never get a loss.
        plain: Renders rows of plain text, if `chat_tokenizer` has a template with roles; None refuses such rows.

    Attributes:
        lengths: Fits samples to `max_length` and counts what it changed, until cleared.
        remarks: Remarks on conversations of the last call, by their index.
        unused: Parts of conversations of the last call that are not used, by their index: (name, example).
    """

    def __init__(
        self,
        chat_tokenizer: ChatTokenizer,
        max_length: int,
        overlong: str,
        train_on: str = 'all_replies',
        plain: ChatTokenizer | None = None,
    ) -> None:
        self.chat_tokenizer, self.plain = chat_tokenizer, plain
        self.last_reply_only = train_on == 'last_reply'
        self.lengths = LengthFitter(max_length, overlong, self.encode, self.last_reply_only)
        self.vocab_size = len(chat_tokenizer.tokenizer)
        self.remarks: dict[int, list[str]] = {}
        self.unused: dict[int, list[tuple[str, str]]] = {}
        self._identity = max_length, overlong, train_on

    @property
    def max_length(self) -> int:
        """Tokens per sample."""
        return self.lengths.max_length

    @property
    def length_changes(self) -> Counter:
        """How often rows were changed or dropped for their length, by what was done."""
        return self.lengths.changes

    def __call__(self, conversations: Sequence[Conversation | Tokens]) -> list[list[Sample] | Exception]:
        """Return for each conversation its samples (several if it is split, none if it is dropped), or an error.

        The error is a `RowError`, or a `DataError` if the row is too long and `overlong` is 'error'.
        """
        results: list = [None] * len(conversations)
        rendered: list[tuple[int, Conversation, RenderedConversation]] = []
        self.remarks, self.unused = {}, {}
        for index, conversation in enumerate(conversations):
            try:
                if isinstance(conversation, Tokens):
                    results[index] = self.lengths.fit(self._from_ids(conversation), conversation)
                else:
                    rendered += self._render_parts(index, conversation)
            except (RowError, DataError) as error:
                results[index] = error
        tokenized = self.chat_tokenizer.tokenize([text for *_, text in rendered])
        for index, group in groupby(zip(rendered, tokenized, strict=True), lambda pair: pair[0][0]):
            try:
                parts = [(self._to_sample(part.messages, tokens), part) for (_, part, _), tokens in group]
                results[index] = self.lengths.fit(*parts[0]) if len(parts) == 1 else self.lengths.fit_parts(parts)
            except (RowError, DataError) as error:
                results[index] = error
        return results

    def identity(self) -> tuple:
        """Return everything a sample depends on besides the conversation."""
        plain = self.plain.template.source if self.plain else None
        return self.chat_tokenizer.identity(), plain, *self._identity

    def encode(self, conversation: Conversation) -> Sample:
        """Return `conversation` as one sample of any length.

        Raises:
            RowError: The template refuses it.
        """
        [tokens] = self.chat_tokenizer.tokenize([self._render(conversation)])
        return self._to_sample(conversation.messages, tokens)

    def _render_parts(
        self, index: int, conversation: Conversation
    ) -> list[tuple[int, Conversation, RenderedConversation]]:
        """Return the index, part and rendered text of each part of a conversation, and note remarks on it."""
        rendered = [(index, part, self._render(part)) for part in self._split_reasoning(index, conversation)]
        remarks = [PLAIN_TEXT] * (self.plain is not None and conversation.messages[0]['role'] == 'text')
        remarks += [ESCAPED] * is_escaped(rendered[0][-1].text)
        if remarks:
            self.remarks.setdefault(index, []).extend(remarks)
        return rendered

    def _render(self, conversation: Conversation) -> RenderedConversation:
        if conversation.messages[0]['role'] != 'text':
            return self.chat_tokenizer.render(conversation)
        name = self.chat_tokenizer.template.name
        plain = self.chat_tokenizer if name == 'plain' else self.plain
        if plain is None:
            raise RowError("plain text needs chat_template='plain', as in the pretraining presets", f'it is `{name}`')
        if plain.special_tokens.mode == 'parse':  # do not add bos and eos a second time
            text = strip_bos_eos(conversation.messages[0]['content'], plain.template)
            conversation = Conversation([{'role': 'text', 'content': text}], notes=conversation.notes)
        return plain.render(conversation)

    def _split_reasoning(self, index: int, conversation: Conversation) -> list[Conversation]:
        """Return the parts of a conversation to make samples of: itself, or parts that each end in a reasoning."""
        template = self.chat_tokenizer.template
        if conversation.messages[0]['role'] == 'text':
            return [conversation]
        if not (template.supports_reasoning or template.parses_think_tags):
            for number, message in enumerate(conversation.messages, 1):
                if message['role'] == 'assistant':
                    reasoning.check_closed(message, f'message {number}')
            return [conversation]
        split = reasoning.split(conversation, template, self.chat_tokenizer.keeps_tags, self.last_reply_only)
        if split.remarks:
            self.remarks[index] = split.remarks
        if split.dropped:
            self.unused[index] = [(reasoning.DROPPED, shortened(split.dropped))]
        return split.parts

    def _to_sample(self, messages: list[Message], tokens: TokenizedConversation) -> Sample:
        ids, turns = tokens
        trained = [is_trained(message) for message in messages if message['role'] in TRAINABLE_ROLES]
        if self.last_reply_only:
            trained[:-1] = [False] * (len(trained) - 1)
        return Sample(np.asarray(ids, dtype=np.int32), turns, trained)

    def _from_ids(self, tokens: Tokens) -> Sample:
        ids = np.asarray(tokens.ids, dtype=np.int64)
        if ids.max() >= self.vocab_size:
            raise RowError('token id out of range', f'id {ids.max()}, the vocabulary has {self.vocab_size} tokens')
        edges = np.flatnonzero(np.diff(np.concatenate([[0], tokens.trained, [0]]).astype(np.int8)))
        turns = [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]
        return Sample(ids.astype(np.int32), turns, [True] * len(turns))
