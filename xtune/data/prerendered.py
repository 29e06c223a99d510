"""Detect rows to which a chat template has already been applied: their special tokens would become ordinary text.

    {"text": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"}

Such rows are refused before anything is tokenized, unless the config says how to treat special tokens.
"""

import re
from collections.abc import Sequence

from ..errors import DataError, XtuneError
from ..messages import RowError, Tokens
from .chat_tokenizer import ChatTokenizer
from .mapper import RowMapper
from .sources import Row
from .special_tokens import strings_in

ROWS_CHECKED = 100
# Turn markers of widely used templates. A tokenizer without them would encode them as text in any case.
_MARKER_NAMES = 'im|start|begin|end|header|eot|eom|eos|system|user|assistant|bot|human|model|turn|role|message|channel'
_TURN_MARKERS = (
    rf'<[|｜](?i:{_MARKER_NAMES})[^<>|｜\s]*[|｜]>|<\|turn>|<turn\|>|<(?:start|end)_of_(?:turn|utterance)>|\[/?INST\]'
    '|<reserved_10[67]>|<用户>'
)


def refuse_prerendered(rows: Sequence[Row], mapper: RowMapper, chat_tokenizer: ChatTokenizer) -> None:
    """Check that `rows`, the first ones of a source, were not written by a chat template.

    Raises:
        DataError: At least half of them have special tokens where a template writes them.
    """
    if chat_tokenizer.special_tokens.mode != 'auto':
        return
    pattern = _marker_pattern(chat_tokenizer)
    checked, prerendered = 0, []
    for row in rows:
        # Most data have no special tokens: then there is no need to call the map function.
        if not pattern.search('\0'.join(strings_in(row.values))):
            checked += 1
            continue
        try:
            mapped = mapper(row.values)
        except (RowError, XtuneError):
            continue
        checked += 1
        if not isinstance(mapped, Tokens) and any(_is_rendered(s, pattern) for s in strings_in(mapped.messages)):
            prerendered.append(row)
    if 2 * len(prerendered) >= checked > 0:
        text = '\0'.join(strings_in(prerendered[0].values))
        tokens = list(dict.fromkeys(pattern.findall(text)))
        raise _refusal(prerendered, checked, tokens, chat_tokenizer)


def _marker_pattern(chat_tokenizer: ChatTokenizer) -> re.Pattern:
    """Return a pattern of special tokens and turn markers, without `<unk>`: some corpora write it for rare words."""
    texts = [text for text in chat_tokenizer.special_tokens.texts if 'unk' not in text.lower()]
    return re.compile('|'.join([*map(re.escape, sorted(texts, key=len, reverse=True)), _TURN_MARKERS]))


def _is_rendered(text: str, pattern: re.Pattern) -> bool:
    """Tell whether `text` has special tokens where templates write them, not just one that somebody quotes."""
    spans = [match.span() for match in pattern.finditer(text)]
    if not spans:
        return False
    begin, end = len(text) - len(text.lstrip()), len(text.rstrip())
    return len(spans) > 1 or spans[0][0] == begin or spans[-1][1] == end


def _refusal(rows: list[Row], checked: int, tokens: list[str], chat_tokenizer: ChatTokenizer) -> DataError:
    shown = ', '.join(f'`{token}`' for token in tokens[:4])
    if any(token in chat_tokenizer.special_tokens.texts for token in tokens):
        parse = "  control_tokens='parse' encodes them as special tokens; in plain text every token is trained.\n"
    else:
        parse = '  This tokenizer has no such special tokens: the data were written for another model.\n'
    return DataError(
        f'{len(rows):,} of the first {checked:,} rows of {rows[0].origin} contain {shown}, as if a chat template had '
        f'already been applied (first: row {rows[0].number}). They would be encoded as ordinary text, and the model '
        'would not learn the chat format. Options:\n'
        '  Write a map function that returns messages (train_dataset.map_fn): the template is applied, and only '
        f'assistant messages are trained.\n{parse}'
        "  control_tokens='text' confirms that they are ordinary text."
    )
