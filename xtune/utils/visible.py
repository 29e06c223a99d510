"""Escape invisible characters and terminal control characters."""

import unicodedata
from collections.abc import Iterator

# Letters by Unicode category, but rendered blank: Hangul and Braille fillers.
_BLANK = '\u115f\u1160\u2800\u3164\uffa0'

SHOWN = 60  # characters of a shortened value


def visible(text: str, keep: str = '') -> str:
    r"""Return `text` with hidden characters escaped, such as `\x1b` and `\u202e`, except those in `keep`."""
    if text.isascii() and text.isprintable():
        return text
    return ''.join(_escape(c) if c not in keep and _is_hidden(c) else c for c in text)


def parts(text: str) -> Iterator[tuple[str, str]]:
    """Yield the parts of `text`: ('text', characters), ('line', newline), ('tab', tab), ('chip', code point).

    A 'chip' is a hidden character.
    """
    start = 0
    for index, char in enumerate(text):
        part_type = {'\n': 'line', '\t': 'tab'}.get(char) or ('chip' if _is_hidden(char) else '')
        if not part_type:
            continue
        if index > start:
            yield 'text', text[start:index]
        yield part_type, f'U+{ord(char):04X}' if part_type == 'chip' else char
        start = index + 1
    if start < len(text):
        yield 'text', text[start:]


def _is_hidden(char: str) -> bool:
    if ' ' <= char <= '~':
        return False
    return char in _BLANK or unicodedata.category(char) in ('Cc', 'Cf', 'Cs', 'Zl', 'Zp')


def _escape(char: str) -> str:
    code = ord(char)
    return f'\\x{code:02x}' if code < 0x100 else f'\\u{code:04x}' if code < 0x10000 else f'\\U{code:08x}'


def shortened(value: object) -> str:
    """Return the start of `value` as Python writes it."""
    text = repr(value[:SHOWN] if isinstance(value, (str, list)) else value)
    return text if len(text) <= SHOWN else f'{text[: SHOWN - 3]}...'
