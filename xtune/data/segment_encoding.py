"""Tokenize a rendered conversation segment by segment, so that no token crosses the boundary of a segment.

Segments are the prompt, each assistant message, and within them escaped special-token text. This is slower than
encoding the text at once, and needed only where a token would cross a boundary.
"""

from transformers import PreTrainedTokenizerBase

from ..templates.template import Span
from .special_tokens import split_escaped


class SegmentEncoder:
    """Encode text in segments.

    Args:
        tokenizer: Encodes each segment; it adds no special tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        # A tokenizer that puts a space before any text would also put one before every segment.
        self._adds_prefix_space = self.ids('a') != self.ids('\na')[len(self.ids('\n')) :]
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._special_ids = special.union(tokenizer.all_special_ids)
        self._added_tokens = tuple(sorted(tokenizer.get_added_vocab(), key=len, reverse=True))

    def encode(self, text: str, spans: list[Span]) -> tuple[list[int], list[Span]]:
        """Return the token ids of `text`, and the token span of each of the character `spans`."""
        ids: list[int] = []
        turns, at = [], 0
        for start, end in spans:
            ids = self._append(ids, text, at, start)
            first = len(ids)
            ids = self._append(ids, text, start, end)
            turns.append((first, len(ids)))
            at = end
        return self._append(ids, text, at, len(text)), turns

    def ids(self, text: str, special_as_text: bool = False) -> list[int]:
        """Return the token ids of `text` alone."""
        # Passed in both cases: a fast tokenizer remembers the value of the last call.
        encoding = self.tokenizer(text, add_special_tokens=False, split_special_tokens=special_as_text, verbose=False)
        return encoding['input_ids']

    def _append(self, ids: list[int], text: str, start: int, end: int) -> list[int]:
        """Return `ids` followed by the token ids of `text[start:end]`."""
        ids, before = list(ids), text[:start]
        for segment, special_as_text in split_escaped(text, start, end):
            if ids and self._adds_prefix_space:
                new = self._continued(segment, special_as_text, before)
            else:
                new = self.ids(segment, special_as_text)
            if special_as_text and not self._special_ids.isdisjoint(new):
                # Unigram models, and merges learned from such text, also know special tokens as ordinary words.
                new = [i for character in segment for i in self._continued(character, True, '')]
            ids += new
            before = '' if special_as_text else segment
        return ids

    def _continued(self, segment: str, special_as_text: bool, before: str) -> list[int]:
        """Return the ids of `segment` after `before`, with a prefix space only if the tokenizer adds one there."""
        # Some tokenizers add a space after each added token, and none after a newline.
        lead = next((token for token in self._added_tokens if before.endswith(token)), '\n')
        lead = '\n' if special_as_text else lead
        ids, lead_ids = self.ids(lead + segment, special_as_text), self.ids(lead, special_as_text)
        return ids[len(lead_ids) :] if ids[: len(lead_ids)] == lead_ids else self.ids(segment, special_as_text)
