"""Conversation -> token ids and trained spans.

    text    <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n
    tokens  [.....................................................][.................][.]
    spans                                                           trained
                                                                    (reply + end of turn)

Tokens come from the rendered text without special tokens added a second time. Labels are decided by position, never by
token value, so pad == eos cannot mask an end of turn.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..errors import DataError, TemplateError
from ..templates.template import ChatTemplate, Span
from .conversation import Message, RowError, is_trained


@dataclass
class Sample:
    """`ids` [S] and, in token positions, the end of each turn and the spans [start, end) that are trained."""

    ids: np.ndarray
    turns: list[Span]
    trained: list[bool]

    @property
    def spans(self) -> list[Span]:
        """The spans that get a loss."""
        return [span for span, wanted in zip(self.turns, self.trained, strict=True) if wanted]


class Encoder:
    """Encodes conversations to samples of at most `max_length` tokens.

    Args:
        tokenizer: Its special tokens are not added to what the template writes.
        template: Renders a conversation and says which characters are replies.
        max_length: Tokens per sample.
        overlong: 'truncate', 'split', 'drop' or 'error'.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, max_length: int, overlong: str):
        self.tokenizer, self.template = tokenizer, template
        self.max_length, self.overlong = max_length, overlong
        self.notes: Counter = Counter()

    def __call__(self, messages: list[Message]) -> list[Sample]:
        """Return the samples of one conversation: one, several if it is split, none if it is dropped.

        Raises:
            RowError: The conversation cannot be trained on.
            DataError: It is too long and `overlong` is 'error'.
        """
        if messages[0]['role'] == 'text' and self.template.name != 'plain':
            raise RowError("text rows need template='plain'", f'template is `{self.template.name}`')
        sample = self._encode(messages)
        if len(sample.ids) <= self.max_length:
            return [sample]
        if self.overlong == 'drop':
            self.notes['row dropped: longer than max_length'] += 1
            return []
        if self.overlong == 'error':
            raise DataError(
                f'a sample has {len(sample.ids)} tokens, more than max_length={self.max_length}; raise max_length or '
                "set overlong to 'truncate', 'split' or 'drop'"
            )
        if self.overlong == 'truncate':
            return [self._truncate(sample)]
        pieces = self._cut_text(sample) if messages[0]['role'] == 'text' else list(self._split(messages))
        if not pieces:
            raise RowError('prompt longer than max_length', 'in every exchange')
        if len(pieces) > 1:
            self.notes['row split'] += 1
        return pieces

    def _encode(self, messages: list[Message]) -> Sample:
        try:
            text, spans = self.template.render(messages)
        except TemplateError as error:
            raise RowError('the template refuses it', str(error)) from error
        trained = [is_trained(m) for m in messages if m['role'] in ('assistant', 'text')]
        if self.tokenizer.is_fast:
            encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            offsets = np.asarray(encoded['offset_mapping'], dtype=np.int64).reshape(-1, 2)
            turns = [_token_span(offsets, span, text) for span in spans]
            if None not in turns:
                return Sample(np.asarray(encoded['input_ids'], dtype=np.int32), turns, trained)
        # A token reaches over the border of a reply (or there are no offsets). Inference tokenises the prompt alone, so
        # the pieces are encoded alone too.
        return Sample(*self._encode_pieces(text, spans), trained)

    def _encode_pieces(self, text: str, spans: list[Span]) -> tuple[np.ndarray, list[Span]]:
        ids, turns, at = [], [], 0
        for start, end in spans:
            ids += self._ids(text[at:start])
            before = len(ids)
            ids += self._ids(text[start:end])
            turns.append((before, len(ids)))
            at = end
        ids += self._ids(text[at:])
        return np.asarray(ids, dtype=np.int32), turns

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, verbose=False)['input_ids'] if text else []

    def _truncate(self, sample: Sample) -> Sample:
        """Keep the whole turns that fit; if the first reply does not, shorten it and keep its end of turn."""
        fitting = [
            i for i, (_, end) in enumerate(sample.turns) if end <= self.max_length and any(sample.trained[: i + 1])
        ]
        if fitting:
            self.notes['row shortened: later turns cut'] += 1
            keep = fitting[-1] + 1
            return Sample(sample.ids[: sample.turns[keep - 1][1]], sample.turns[:keep], sample.trained[:keep])
        first = sample.trained.index(True)
        start, end = sample.turns[first]
        if start > self.max_length - 2:
            raise RowError('prompt longer than max_length', f'{start} tokens before the first trained reply')
        self.notes['row shortened: a reply cut'] += 1
        ids = np.concatenate([sample.ids[: self.max_length - 1], sample.ids[end - 1 : end]])
        return Sample(ids, [*sample.turns[:first], (start, self.max_length)], sample.trained[: first + 1])

    def _cut_text(self, sample: Sample) -> list[Sample]:
        pieces = []
        for at in range(0, len(sample.ids), self.max_length):
            ids = sample.ids[at : at + self.max_length]
            start, end = sample.turns[0]
            pieces.append(Sample(ids, [(max(start - at, 0), min(end - at, len(ids)))], sample.trained))
        return pieces

    def _split(self, messages: list[Message]) -> Iterator[Sample]:
        """Yield samples of whole exchanges, each with the system message again."""
        head = messages[:1] if messages[0]['role'] == 'system' else []
        ends = [i + 1 for i, m in enumerate(messages) if m['role'] == 'assistant']
        starts = [i for i, m in enumerate(messages) if m['role'] == 'user'] + [len(messages)]
        ends = [end for end in ends if end in starts]  # a tool call and its answer stay together
        begin = len(head)
        while begin < len(messages):
            fitting = None
            for end in (e for e in ends if e > begin):
                piece = self._encode(head + messages[begin:end])
                if fitting is not None and len(piece.ids) > self.max_length:
                    break
                fitting = (end, piece)
            begin, piece = fitting
            if any(piece.trained):
                try:
                    yield piece if len(piece.ids) <= self.max_length else self._truncate(piece)
                except RowError as error:
                    self.notes['exchange left out: ' + error.reason] += 1


def _token_span(offsets: np.ndarray, span: Span, text: str) -> Span | None:
    """Return the tokens that make up the characters `span`, or None if a token reaches over its border."""
    start, end = span
    starts, ends = offsets[:, 0], offsets[:, 1]
    # Space on both sides of the border (or before a word) may be one token, and offsets may leave space out.
    if text[start - 1 : start] == ' ' or (text[start - 1 : start].isspace() and text[start].isspace()):
        return None
    first = int(np.searchsorted(starts, start, side='left'))
    stop = int(np.searchsorted(starts, end, side='left'))
    if first and ends[first - 1] > start and text[start : ends[first - 1]].strip():
        return None
    # A special token may swallow the space after it (rstrip): the overhang is then only space.
    if stop and ends[stop - 1] > end and text[end : ends[stop - 1]].strip():
        return None
    return (first, stop) if stop > first else None
