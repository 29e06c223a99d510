"""Read a sentencepiece tokenizer.model: its pieces and the settings of its tokenization.

The file is a protocol-buffer message. Only a few of its fields are needed, so they are parsed here without the protobuf
package, which would have to have a matching version.
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
    """A piece of the vocabulary; its id is its index. `type` is one of the constants above."""

    text: str
    score: float
    type: int


@dataclass(frozen=True)
class SentencePieceFile:
    """The content of a sentencepiece file.

    Attributes:
        pieces: Pieces in the order of their ids.
        add_dummy_prefix: Whether a space is prepended to a text.
        bos: Text of the bos piece.
        eos: Text of the eos piece.
        unknown_text: Text that the unknown piece decodes to.
    """

    pieces: list[Piece]
    add_dummy_prefix: bool
    bos: str = '<s>'
    eos: str = '</s>'
    unknown_text: str = ' \u2047 '

    @property
    def has_bytes(self) -> bool:
        """Whether text without a piece falls back to byte pieces instead of the unknown piece."""
        return any(piece.type == BYTE for piece in self.pieces)

    @property
    def unknown(self) -> str:
        """The text of the unknown piece."""
        return next(piece.text for piece in self.pieces if piece.type == UNKNOWN)


def read_sentencepiece(path: Path) -> SentencePieceFile:
    """Return the content of `path`.

    Raises:
        ModelError: It is damaged, or a type of model that cannot be converted exactly.
    """
    try:
        fields = _fields(path.read_bytes())
        pieces = [_piece(value) for number, value in fields if number == 1]
        trainer = dict(next((_fields(value) for number, value in fields if number == 2), []))
        normalizer = dict(next((_fields(value) for number, value in fields if number == 3), []))
    except (IndexError, ValueError, TypeError, struct.error) as error:
        raise ModelError(f'{path} is damaged, or not a sentencepiece model ({error}); copy it again') from error
    types = [piece.type for piece in pieces]
    name = bytes(normalizer.get(1, b'')).decode()
    problems = [
        problem
        for problem, applies in (
            ('it has no pieces', not pieces),
            ('its model type is not BPE', trainer.get(3, 1) != _BPE),
            (f'its normalization is `{name}`, not identity', name != 'identity' or bool(normalizer.get(2))),
            ('it removes spaces', bool(normalizer.get(4, 1))),
            ('it has no unknown piece, or several', types.count(UNKNOWN) != 1),
            ('it puts the space marker after words', bool(trainer.get(24, 0))),
        )
        if applies
    ]
    if problems:
        raise ModelError(f'{path} cannot be converted exactly: {"; ".join(problems)}')
    fields_of_texts = {'bos': 46, 'eos': 47, 'unknown_text': 44}
    texts = {key: bytes(trainer[field]).decode('utf-8') for key, field in fields_of_texts.items() if field in trainer}
    return SentencePieceFile(pieces, bool(normalizer.get(3, 1)), **texts)


def _piece(data: bytes) -> Piece:
    values = dict(_fields(data))
    score = struct.unpack('<f', values[2])[0] if 2 in values else 0.0
    return Piece(bytes(values.get(1, b'')).decode('utf-8'), score, values.get(3, NORMAL))


def _fields(data: bytes) -> list[tuple[int, int | bytes]]:
    return list(_each_field(memoryview(data)))


def _each_field(data: memoryview) -> Iterator[tuple[int, int | bytes]]:
    """Yield field numbers and values: integers, or the bytes of strings, messages and fixed-size numbers."""
    offset = 0
    while offset < len(data):
        key, offset = _varint(data, offset)
        wire_type = key & 7
        if wire_type == 0:
            value, offset = _varint(data, offset)
            yield key >> 3, value
            continue
        if wire_type not in (1, 2, 5):
            raise ValueError(f'wire type {wire_type}')
        size, offset = _varint(data, offset) if wire_type == 2 else ({1: 8, 5: 4}[wire_type], offset)
        if offset + size > len(data):
            raise ValueError('truncated')
        yield key >> 3, bytes(data[offset : offset + size])
        offset += size


def _varint(data: memoryview, offset: int) -> tuple[int, int]:
    """Return the integer at `offset`, and the offset after it."""
    value = shift = 0
    while True:
        byte = data[offset]
        value |= (byte & 0x7F) << shift
        offset, shift = offset + 1, shift + 7
        if byte < 0x80:
            return value, offset
        if shift > 63:
            raise ValueError('number too long')
