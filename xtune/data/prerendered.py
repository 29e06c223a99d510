"""Rows to which a chat template has been applied already: their special tokens would become ordinary text.

    {"text": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"}

Such rows are refused before anything is tokenised, unless the config says what is to become of special tokens.
"""

import re
from collections.abc import Sequence

from ..errors import DataError, XtuneError
from ..messages import RowError, Tokens
from .mapping import RowMapper
from .sources import Row
from .special_tokens import all_texts
from .tokenise import Tokeniser

LOOK = 100  # rows
# Tokens around turns in widely used templates. A tokenizer that lacks them would read them as text in any case.
_NAMED = 'im|start|begin|end|header|eot|eom|eos|system|user|assistant|bot|human|model|turn|role|message|channel'
_AROUND_TURNS = (
    rf'<[|｜](?i:{_NAMED})[^<>|｜\s]*[|｜]>|<\|turn>|<turn\|>|<(?:start|end)_of_(?:turn|utterance)>|\[/?INST\]'
    '|<reserved_10[67]>|<用户>'
)


def refuse_prerendered(rows: Sequence[Row], mapper: RowMapper, tokeniser: Tokeniser) -> None:
    """Look whether `rows`, the first of a source, were written by a chat template.

    Raises:
        DataError: At least half of them hold special tokens as a template writes them.
    """
    if tokeniser.control.mode != 'auto':
        return
    pattern = _marks(tokeniser)
    looked, found = 0, []
    for row in rows:
        # Most data hold no special token, and then the map function need not be called.
        if not pattern.search('\0'.join(all_texts(row.values))):
            looked += 1
            continue
        try:
            made = mapper(row.values)
        except (RowError, XtuneError):
            continue
        looked += 1
        if not isinstance(made, Tokens) and any(_is_written(text, pattern) for text in all_texts(made.messages)):
            found.append(row)
    if 2 * len(found) >= looked > 0:
        text = '\0'.join(all_texts(found[0].values))
        raise _refusal(found, looked, list(dict.fromkeys(pattern.findall(text))), tokeniser)


def _marks(tokeniser: Tokeniser) -> re.Pattern:
    """Return a pattern of special tokens and those around turns. Some corpora write `<unk>` for a rare word."""
    tokens = sorted((token for token in tokeniser.control.texts if 'unk' not in token.lower()), key=len, reverse=True)
    return re.compile('|'.join([*map(re.escape, tokens), _AROUND_TURNS]))


def _is_written(text: str, pattern: re.Pattern) -> bool:
    """Tell whether a text has special tokens where templates write them, not one that somebody quotes."""
    places = [match.span() for match in pattern.finditer(text)]
    if not places:
        return False
    begin, end = len(text) - len(text.lstrip()), len(text.rstrip())
    return len(places) > 1 or places[0][0] == begin or places[-1][1] == end


def _refusal(found: list[Row], looked: int, tokens: list[str], tokeniser: Tokeniser) -> DataError:
    known = [token for token in tokens if token in tokeniser.control.texts]
    shown = ', '.join(f'`{token}`' for token in tokens[:4])
    parse = (
        "  control_tokens='parse' makes them the tokens that they are; of plain text every token is trained.\n"
        if known
        else '  They are no special tokens of this tokenizer: the data were written for another model.\n'
    )
    return DataError(
        f'{len(found):,} of the first {looked:,} rows of {found[0].origin} hold {shown}, as if a chat template had '
        f'been applied to them (the first: row {found[0].number}). They would become ordinary text, and the model '
        f'would learn no format from them. What to do:\n'
        f'  A map function that returns messages (train_dataset.map_fn) lets the template write them, and trains the '
        f'replies only.\n{parse}'
        "  control_tokens='text' says that they are meant as ordinary text."
    )
