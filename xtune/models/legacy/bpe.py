"""Convert sentencepiece and tiktoken files exactly to the `tokenizers` library: every text keeps its token ids.

The conversion of sentencepiece files in transformers orders merges by id and always prepends a space, which changes
most ids of some of these files. Here merges are ordered by score, and every conversion is compared with sentencepiece,
or with the tiktoken ranks, on `TEST_TEXTS`.
"""

import base64
import binascii
import unicodedata
from pathlib import Path

import regex
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from ...errors import ModelError
from .sentencepiece_file import NORMAL, USER_DEFINED, SentencePieceFile

SPACE = '\u2581'
TEST_TEXTS = (
    '', 'a', ' ', '  two  spaces ', '\n', 'a\n\nb', '\t\ttabs\r\n', 'Hello, world! How are you today?',
    "It's 3.14159 and 1,000,000 -- isn't it?", 'philosophy people soap [MASK] [gMASK] sop eop', '你好，世界！',
    '今天天气很好，我们去公园散步吧。', '「日本語」のテキスト、한국어 문장', 'Ünïcödé ñandú Ελληνικά русский العربية',
    'def add(a, b):\n    return a + b  # sum\n', '{"key": [1, 2.5e-3, null]}', '🙂👍🏽 é e\u0301 \u200b\ufeff',
    '𠮷野家 ｆｕｌｌ　ｗｉｄｔｈ',    'https://example.org/a?b=c&d=%20', '▁ ▁▁ marks', '<s> </s> <unk> <pad>',
    'ABC' * 20, '啊' * 30, '\x01\x7f\u0378',
)  # fmt: skip


def from_sentencepiece(path: Path, file: SentencePieceFile) -> Tokenizer:
    """Return the tokenizer of a sentencepiece file.

    Raises:
        ModelError: Its ids differ from those of sentencepiece.
    """
    # sentencepiece ends a text at NUL, so such a piece is never used; "unused N" contains a space, which no normalized
    # text does.
    texts = [piece.text if piece.text != '\0' else f'unused {i}' for i, piece in enumerate(file.pieces)]
    vocab = {text: i for i, text in enumerate(texts)}
    bpe = BPE(vocab=vocab, merges=_merges(file), byte_fallback=file.has_bytes, fuse_unk=True, unk_token=file.unknown)
    tokenizer = Tokenizer(bpe)
    prefix = [normalizers.Prepend(SPACE)] if file.add_dummy_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(' ', SPACE)])
    strip = [decoders.Strip(' ', 1, 0)] if file.add_dummy_prefix else []
    # With byte pieces no text is unknown.
    unknown = [] if file.has_bytes else [decoders.Replace(file.unknown, file.unknown_text)]
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, ' '), *unknown, decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    # sentencepiece matches user-defined symbols in normalized text, which contains no space.
    user_defined = [piece.text for piece in file.pieces if piece.type == USER_DEFINED and ' ' not in piece.text]
    normalized = not file.add_dummy_prefix
    tokenizer.add_tokens([AddedToken(text, normalized=normalized, special=False) for text in user_defined])
    _compare_with_sentencepiece(path, tokenizer)
    return tokenizer


def _merges(file: SentencePieceFile) -> list[tuple[str, str]]:
    """Return all pairs of pieces that form another piece, in descending order of its score."""
    ids = {p.text: i for i, p in enumerate(file.pieces) if p.type == NORMAL and p.text != '\0'}
    ranked = []
    for text, piece_id in ids.items():
        for length in range(1, len(text)):
            left, right = text[:length], text[length:]
            if left in ids and right in ids:
                ranked.append((-file.pieces[piece_id].score, piece_id, ids[left], ids[right], left, right))
    return [(left, right) for *_, left, right in sorted(ranked)]


def _compare_with_sentencepiece(path: Path, tokenizer: Tokenizer) -> None:
    import sentencepiece

    original = sentencepiece.SentencePieceProcessor(model_file=str(path))
    for text in TEST_TEXTS:
        ids, expected = tokenizer.encode(text, add_special_tokens=False).ids, original.encode(text)
        _require_equal_ids(path, text, ids, expected)
        decoded = tokenizer.decode(expected, skip_special_tokens=False)
        if decoded != original.decode(expected):
            raise ModelError(f'{path} cannot be converted exactly: the ids of {text!r} decode to {decoded!r}')


def _require_equal_ids(path: Path, text: str, ids: list[int], expected: list[int]) -> None:
    if ids != expected:
        raise ModelError(
            f'{path} cannot be converted exactly: the ids of {text!r} are {ids[:8]}, the original ones {expected[:8]}'
        )


def read_ranks(path: Path) -> dict[bytes, int]:
    """Return the ranks of a tiktoken file, whose lines are a base64 token and its rank.

    Raises:
        ModelError: A line has another form, or a rank is missing.
    """
    ranks = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if line.strip():
            try:
                token, rank = line.split()
                ranks[base64.b64decode(token, validate=True)] = int(rank)
            except (ValueError, binascii.Error) as error:
                raise ModelError(f'{path}, line {number}: {line[:40]!r} is not a base64 token and a rank') from error
    if sorted(ranks.values()) != list(range(len(ranks))) or not ranks:
        raise ModelError(f'{path} is damaged: its ranks are not 0 to {len(ranks) - 1}; copy it again')
    return ranks


def byte_level(ranks: dict[bytes, int]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return vocabulary and merges of tiktoken ranks, as the characters that represent bytes in byte-level BPE."""
    characters = bytes_to_unicode()
    as_text = {token: ''.join(characters[byte] for byte in token) for token in ranks}
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        tokens = encode_word(token, ranks, rank)
        if len(tokens) == 2:
            merges.append((as_text[tokens[0]], as_text[tokens[1]]))
    return {as_text[token]: rank for token, rank in ranks.items()}, merges


def encode_word(word: bytes, ranks: dict[bytes, int], max_rank: int | None = None) -> list[bytes]:
    """Return the BPE tokens of a word: merge the pair of the lowest rank until none is below `max_rank`."""
    tokens = [word[i : i + 1] for i in range(len(word))]
    limit = len(ranks) if max_rank is None else max_rank
    while len(tokens) > 1:
        rank, at = min((ranks.get(tokens[i] + tokens[i + 1], limit), i) for i in range(len(tokens) - 1))
        if rank >= limit:
            break
        tokens[at : at + 2] = [tokens[at] + tokens[at + 1]]
    return tokens


def bytes_to_unicode() -> dict[int, str]:
    """Return the character of each byte in byte-level BPE: itself if it is printable, else one above 255."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def compare_with_ranks(path: Path, tokenizer: Tokenizer, ranks: dict[bytes, int], pattern: str) -> None:
    """Compare the ids of `tokenizer` with those of the ranks on `TEST_TEXTS`.

    Args:
        path: The tiktoken file, for messages.
        tokenizer: The converted tokenizer.
        ranks: The content of the file.
        pattern: Regular expression that splits a text into words.

    Raises:
        ModelError: They differ.
    """
    for text in TEST_TEXTS:
        words = regex.findall(pattern, unicodedata.normalize('NFC', text))
        expected = [ranks[token] for word in words for token in encode_word(word.encode('utf-8'), ranks)]
        _require_equal_ids(path, text, tokenizer.encode(text, add_special_tokens=False).ids, expected)


def allow_prefix_tokens(tokenizer: Tokenizer, words: tuple[str, str]) -> None:
    """Tokenize two special words, written together at the start of a text, as their tokens, and nowhere else.

    The words are in the vocabulary without merges, so ordinary text does not produce them: it starts with the space
    marker, and the vocabulary is only searched for complete pre-tokens. Added tokens would match inside other words.
    """
    first, second = (regex.escape(word) for word in words)
    both = ''.join(words)
    tokenizer.model.ignore_merges = True
    tokenizer.normalizer = normalizers.Sequence(
        [
            tokenizer.normalizer,
            normalizers.Replace(Regex(rf'\A{SPACE}{first}{second}(?=[\s\S])'), both + SPACE),
            normalizers.Replace(Regex(rf'\A{SPACE}{first}{second}\z'), both),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(rf'\A{first}{second}'), 'isolated'),
            pre_tokenizers.Split(Regex(rf'\A{first}(?={second}\z)'), 'isolated'),
        ]
    )
