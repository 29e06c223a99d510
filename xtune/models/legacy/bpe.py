"""Old tokenizer files -> the `tokenizers` library, exactly: the ids of each text are those of the original.

Transformers' own conversion of a sentencepiece file orders merges by id and always puts a space before a text, which
changes most ids of some of these files. Here merges are ordered by score, and every conversion is compared with
sentencepiece, or with the ranks, on `PROBES`.
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
PROBES = (
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
        ModelError: It gives other ids than sentencepiece.
    """
    # sentencepiece ends a text at NUL, so a piece that is one is never used; a space is in no normalised text.
    texts = [piece.text if piece.text != '\0' else f'unused {i}' for i, piece in enumerate(file.pieces)]
    vocab = {text: i for i, text in enumerate(texts)}
    bpe = BPE(vocab=vocab, merges=_merges(file), byte_fallback=file.has_bytes, fuse_unk=True, unk_token=file.unknown)
    tokenizer = Tokenizer(bpe)
    prefix = [normalizers.Prepend(SPACE)] if file.add_dummy_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(' ', SPACE)])
    strip = [decoders.Strip(' ', 1, 0)] if file.add_dummy_prefix else []
    # With pieces for bytes nothing is unknown.
    unknown = [] if file.has_bytes else [decoders.Replace(file.unknown, file.unknown_text)]
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, ' '), *unknown, decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    # sentencepiece looks for these symbols in normalised text, where no space is left.
    own = [piece.text for piece in file.pieces if piece.kind == USER_DEFINED and ' ' not in piece.text]
    in_normalised = not file.add_dummy_prefix
    tokenizer.add_tokens([AddedToken(text, normalized=in_normalised, special=False) for text in own])
    _compare_with_sentencepiece(path, tokenizer)
    return tokenizer


def _merges(file: SentencePieceFile) -> list[tuple[str, str]]:
    """Return every way to make a piece of two, the piece of the highest score first."""
    ids = {p.text: i for i, p in enumerate(file.pieces) if p.kind == NORMAL and p.text != '\0'}
    ranked = []
    for text, number in ids.items():
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in ids and right in ids:
                ranked.append((-file.pieces[number].score, number, ids[left], ids[right], left, right))
    return [(left, right) for *_, left, right in sorted(ranked)]


def _compare_with_sentencepiece(path: Path, tokenizer: Tokenizer) -> None:
    import sentencepiece

    original = sentencepiece.SentencePieceProcessor(model_file=str(path))
    for text in PROBES:
        ids, wanted = tokenizer.encode(text, add_special_tokens=False).ids, original.encode(text)
        _demand_equal(path, text, ids, wanted)
        back = tokenizer.decode(wanted, skip_special_tokens=False)
        if back != original.decode(wanted):
            raise ModelError(f'{path} cannot be converted exactly: the ids of {text!r} decode to {back!r}')


def _demand_equal(path: Path, text: str, ids: list[int], wanted: list[int]) -> None:
    if ids != wanted:
        raise ModelError(
            f'{path} cannot be converted exactly: {text!r} becomes {ids[:8]}, the original gives {wanted[:8]}'
        )


def read_ranks(path: Path) -> dict[bytes, int]:
    """Return the ranks of a tiktoken file: lines of base64 and rank.

    Raises:
        ModelError: A line is neither, or a rank is missing.
    """
    ranks = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if line.strip():
            try:
                token, rank = line.split()
                ranks[base64.b64decode(token, validate=True)] = int(rank)
            except (ValueError, binascii.Error) as error:
                raise ModelError(f'{path}, line {number}: {line[:40]!r} is no base64 token and rank') from error
    if sorted(ranks.values()) != list(range(len(ranks))) or not ranks:
        raise ModelError(f'{path} is damaged: its ranks are not 0 to {len(ranks) - 1}; copy it again')
    return ranks


def byte_level(ranks: dict[bytes, int]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return vocabulary and merges, in the letters that stand for bytes, of tiktoken ranks."""
    letters = byte_letters()
    spell = {token: ''.join(letters[byte] for byte in token) for token in ranks}
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = cut(token, ranks, rank)
        if len(parts) == 2:
            merges.append((spell[parts[0]], spell[parts[1]]))
    return {spell[token]: rank for token, rank in ranks.items()}, merges


def cut(text: bytes, ranks: dict[bytes, int], below: int | None = None) -> list[bytes]:
    """Return the tokens of one word, joining the pair of the lowest rank first; only ranks under `below`."""
    parts = [text[i : i + 1] for i in range(len(text))]
    limit = len(ranks) if below is None else below
    while len(parts) > 1:
        rank, at = min((ranks.get(parts[i] + parts[i + 1], limit), i) for i in range(len(parts) - 1))
        if rank >= limit:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def byte_letters() -> dict[int, str]:
    """Return the letter that byte-level BPE writes for each byte: itself if it is visible, else one above 255."""
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


def compare_with_ranks(path: Path, tokenizer: Tokenizer, ranks: dict[bytes, int], pattern: str) -> None:
    """Compare `tokenizer` with the ranks on `PROBES`.

    Raises:
        ModelError: It gives other ids.
    """
    for text in PROBES:
        words = regex.findall(pattern, unicodedata.normalize('NFC', text))
        wanted = [ranks[token] for word in words for token in cut(word.encode('utf-8'), ranks)]
        _demand_equal(path, text, tokenizer.encode(text, add_special_tokens=False).ids, wanted)


def let_start_with(tokenizer: Tokenizer, words: tuple[str, str]) -> None:
    """Let a text that starts with two given words, written together, start with their tokens; nowhere else.

    The words are pieces of the vocabulary without merges, so ordinary text cannot reach them: it starts with the mark
    of a space, and only a whole pre-token is looked up as it is. As added tokens they would match inside other words.
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
