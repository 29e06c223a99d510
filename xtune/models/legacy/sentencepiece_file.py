"""Read a sentencepiece tokenizer.model: its pieces and the settings that decide how text is cut.

The file is a protocol-buffer message. Only a handful of its fields matter, so they are read here, without a protobuf
package of the right version.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import ModelError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_BPE = 2


@dataclass(frozen=True)
class Piece:
    """A piece of the vocabulary; its id is its place."""

    text: str
    score: float
    kind: int


@dataclass(frozen=True)
class SentencePieceFile:
    """Pieces in the order of their ids, and whether a space is put before a text.

    `bos` and `eos` are the texts of these pieces, `unknown_text` is what an unknown piece decodes to.
    """

    pieces: list[Piece]
    add_dummy_prefix: bool
    bos: str = '<s>'
    eos: str = '</s>'
    unknown_text: str = ' \u2047 '

    @property
    def has_bytes(self) -> bool:
        """Whether what no piece covers becomes pieces of bytes, instead of the unknown one."""
        return any(piece.kind == BYTE for piece in self.pieces)

    @property
    def unknown(self) -> str:
        """The unknown piece."""
        return next(piece.text for piece in self.pieces if piece.kind == UNKNOWN)


def read_sentencepiece(path: Path) -> SentencePieceFile:
    """Return the content of `path`.

    Raises:
        ModelError: It is damaged, or a kind of model that cannot be converted exactly.
    """
    try:
        fields = _fields(path.read_bytes())
        pieces = [_piece(value) for number, value in fields if number == 1]
        trainer = dict(next((_fields(value) for number, value in fields if number == 2), []))
        normaliser = dict(next((_fields(value) for number, value in fields if number == 3), []))
    except (IndexError, ValueError, TypeError, struct.error) as error:
        raise ModelError(f'{path} is damaged, or no sentencepiece model ({error}); copy it again') from error
    kinds = [piece.kind for piece in pieces]
    name = bytes(normaliser.get(1, b'')).decode()
    wrong = [
        reason
        for reason, is_so in (
            ('it has no pieces', not pieces),
            ('its model type is not BPE', trainer.get(3, 1) != _BPE),
            (f'its normalisation is `{name}`, not identity', name != 'identity' or bool(normaliser.get(2))),
            ('it removes spaces', bool(normaliser.get(4, 1))),
            ('it has no unknown piece, or several', kinds.count(UNKNOWN) != 1),
            ('it puts the mark of a space after words', bool(trainer.get(24, 0))),
        )
        if is_so
    ]
    if wrong:
        raise ModelError(f'{path} cannot be converted exactly: {"; ".join(wrong)}')
    texts = {'bos': 46, 'eos': 47, 'unknown_text': 44}
    given = {key: bytes(trainer[field]).decode('utf-8') for key, field in texts.items() if field in trainer}
    return SentencePieceFile(pieces, bool(normaliser.get(3, 1)), **given)


def _piece(data: bytes) -> Piece:
    values = dict(_fields(data))
    score = struct.unpack('<f', values[2])[0] if 2 in values else 0.0
    return Piece(bytes(values.get(1, b'')).decode('utf-8'), score, values.get(3, NORMAL))


def _fields(data: bytes) -> list[tuple[int, int | bytes]]:
    return list(_each_field(memoryview(data)))


def _each_field(data: memoryview) -> Iterator[tuple[int, int | bytes]]:
    """Yield field numbers and values: whole numbers, or bytes of strings, messages and fixed-size numbers."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind not in (1, 2, 5):
            raise ValueError(f'wire type {kind}')
        size, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
        if at + size > len(data):
            raise ValueError('cut off')
        yield key >> 3, bytes(data[at : at + size])
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError('number too long')
