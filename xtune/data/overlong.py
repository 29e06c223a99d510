"""Fit samples of more than `max_length` tokens: truncate, split or drop them, and count what was done."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from ..errors import DataError
from ..messages import Conversation, RowError, Tokens
from .sample import Sample

# What was done to a row; the report shows a count before it.
TRUNCATED = 'row truncated: '
DROPPED = 'row dropped: longer than max_length'
SPLIT = 'row split'
TURNS_REMOVED = f'{TRUNCATED}later turns removed'
RESPONSE_CUT = f'{TRUNCATED}response cut'
END_CUT = f'{TRUNCATED}end cut'
UNTRAINED = 'part dropped: nothing in it is trained'
EXCHANGE_DROPPED = 'exchange dropped: '
# The reason why a row cannot be used.
PROMPT_TOO_LONG = 'prompt longer than max_length'


@dataclass
class LengthFitter:
    """Fit samples to `max_length` tokens.

    Attributes:
        max_length: Tokens per sample.
        overlong: What to do with longer samples: 'truncate', 'split', 'drop' or 'error'.
        encode: Return a conversation as one sample of any length; called for the parts of a split.
        last_reply_only: Only the last assistant message of a conversation is trained.
        changes: How often rows were changed or dropped for their length, by what was done.
        too_long: Tokens of the samples that were dropped or could not be used for their length.
    """

    max_length: int
    overlong: str
    encode: Callable[[Conversation], Sample]
    last_reply_only: bool = False
    changes: Counter = field(default_factory=Counter)
    too_long: list[int] = field(default_factory=list)

    def clear(self) -> None:
        """Reset the counts."""
        self.changes, self.too_long = Counter(), []

    def fit(self, sample: Sample, source: Conversation | Tokens) -> list[Sample]:
        """Return samples of at most `max_length` tokens: `sample`, or what it becomes.

        Args:
            sample: The encoded sample.
            source: The conversation or token ids it was encoded from.

        Raises:
            RowError: Nothing is trained, or not even a truncated response fits.
            DataError: The sample is too long and `overlong` is 'error'.
        """
        if not any(sample.trained):
            raise RowError('nothing to train on', 'the last assistant message has train: false')
        if len(sample.ids) <= self.max_length:
            return [sample]
        if self.overlong == 'drop':
            self.changes[DROPPED] += 1
            self.too_long.append(len(sample.ids))
            return []
        if self.overlong == 'error':
            raise DataError(
                f'a sample has {len(sample.ids)} tokens, more than max_length={self.max_length}; raise max_length or '
                "set overlong to 'truncate', 'split' or 'drop'"
            )
        before = self.changes.copy()
        try:
            parts = self._shortened(sample, source)
        except RowError:
            self.changes = before  # count no changes of a row that is not used
            self.too_long.append(len(sample.ids))
            raise
        if len(parts) > 1:
            self.changes[SPLIT] += 1
        return parts

    def fit_parts(self, parts: list[tuple[Sample, Conversation]]) -> list[Sample]:
        """Return the samples of all parts of one conversation, which counts as one row in `changes`.

        Raises:
            RowError: No part fits.
            DataError: A part is too long and `overlong` is 'error'.
        """
        before, fitted, error = self.changes.copy(), [], None
        for sample, conversation in parts:
            try:
                fitted += self.fit(sample, conversation)
            except RowError as caught:
                error = caught
        if error is not None and not fitted:
            self.changes = before
            raise error
        new = self.changes - before
        if fitted and (error is not None or new.pop(DROPPED, 0)):
            new[TURNS_REMOVED] = 1
        new.pop(UNTRAINED, None)  # it is trained in another part
        self.changes = before + Counter(dict.fromkeys(new, 1))
        return fitted

    def _shortened(self, sample: Sample, source: Conversation | Tokens) -> list[Sample]:
        if self.overlong == 'truncate':
            return [self._head(sample) if isinstance(source, Tokens) else self._truncated(sample)]
        # Plain text and token ids have no turns to split at.
        is_text = isinstance(source, Tokens) or source.messages[0]['role'] == 'text'
        parts = list(self._chunks(sample) if is_text else self._exchanges(source))
        if not parts:
            raise RowError(PROMPT_TOO_LONG, 'in every exchange')
        return parts

    def _truncated(self, sample: Sample) -> Sample:
        """Keep the complete turns that fit. If the first trained one does not, cut it and keep its stop token."""
        turns, trained = sample.turns, sample.trained
        fitting = [i for i, (_, end) in enumerate(turns) if end <= self.max_length and any(trained[: i + 1])]
        if fitting:
            self.changes[TURNS_REMOVED] += 1
            count = fitting[-1] + 1
            return Sample(sample.ids[: turns[count - 1][1]], turns[:count], trained[:count])
        first = trained.index(True)
        start, end = turns[first]
        if start > self.max_length - 2:
            raise RowError(PROMPT_TOO_LONG, f'{start} tokens before the first trained response')
        self.changes[RESPONSE_CUT] += 1
        ids = np.concatenate([sample.ids[: self.max_length - 1], sample.ids[end - 1 : end]])
        return Sample(ids, [*turns[:first], (start, self.max_length)], trained[: first + 1])

    def _head(self, sample: Sample) -> Sample:
        """Keep the first `max_length` tokens."""
        length = self.max_length
        spans = [(start, min(end, length)) for start, end in sample.spans if start < length]
        if not any(end > max(start, 1) for start, end in spans):  # no token predicts token 0
            raise RowError(PROMPT_TOO_LONG, f'{sample.spans[0][0]} tokens before the first trained one')
        self.changes[END_CUT] += 1
        return Sample(sample.ids[:length], spans, [True] * len(spans))

    def _chunks(self, sample: Sample) -> Iterator[Sample]:
        """Yield chunks of `max_length` tokens, without those that are not trained."""
        for offset in range(0, len(sample.ids), self.max_length):
            ids = sample.ids[offset : offset + self.max_length]
            clipped = [(max(start - offset, 0), min(end - offset, len(ids))) for start, end in sample.spans]
            spans = [(start, end) for start, end in clipped if end > start]
            if spans:
                yield Sample(ids, spans, [True] * len(spans))
            else:
                self.changes[UNTRAINED] += 1

    def _exchanges(self, conversation: Conversation) -> Iterator[Sample]:
        """Yield samples of as many complete exchanges as fit, each with the system message again."""
        messages = conversation.messages
        if self.last_reply_only:  # the last one of the conversation, not of each part
            messages = [
                message if message['role'] != 'assistant' else {**message, 'train': False} for message in messages[:-1]
            ] + messages[-1:]
        system = messages[:1] if messages[0]['role'] == 'system' else []
        starts = {i for i, message in enumerate(messages) if message['role'] == 'user'} | {len(messages)}
        # An exchange ends where the next one starts: a tool call and its result stay together.
        ends = [i + 1 for i, message in enumerate(messages) if message['role'] == 'assistant' and i + 1 in starts]
        begin = len(system)
        while begin < len(messages):
            fitting = None
            for end in (end for end in ends if end > begin):
                part = self.encode(Conversation(system + messages[begin:end], conversation.tools))
                if fitting is not None and len(part.ids) > self.max_length:
                    break
                fitting = (end, part)
            begin, part = fitting
            if any(part.trained):
                try:
                    yield part if len(part.ids) <= self.max_length else self._truncated(part)
                except RowError as error:
                    self.changes[EXCHANGE_DROPPED + error.reason] += 1
            else:
                self.changes[UNTRAINED] += 1
