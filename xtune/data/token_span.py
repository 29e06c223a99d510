"""From a character span to a token span."""

from tokenizers import Encoding

from ..templates.template import Span


def token_span(encoding: Encoding, span: Span, text: str) -> Span | None:
    """Return the tokens [start, end) of the characters `span`, or None if a token crosses its boundary.

    Looks up single characters: the list of all offsets costs more than the few that are needed.
    """
    start, end = span
    # Whitespace on both sides of the boundary (or before a word) may be one token, and offsets may omit whitespace.
    if text[start - 1 : start] == ' ' or (text[start - 1 : start].isspace() and text[start].isspace()):
        return None
    first, last = encoding.char_to_token(start), encoding.char_to_token(end - 1)
    if first is None or last is None or encoding.token_to_chars(first)[0] < start:
        return None
    stop, count = last + 1, len(encoding)
    while stop < count and (encoding.token_to_chars(stop) or span)[0] < end:  # bytes of one character
        stop += 1
    # A special token may absorb the whitespace after it (rstrip): it then extends past `end` by whitespace only.
    extent = encoding.token_to_chars(stop - 1)[1]
    return None if extent > end and text[end:extent].strip() else (first, stop)
