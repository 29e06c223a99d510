"""Format numbers of a workbook as a spreadsheet shows them, if the format adds information to the number.

    45 %       0.45  in the format  0%           -> '45%'
    currency   12.5  in the format  "€"#,##0.00  -> '€12.50'
    units      3     in the format  0" kg"       -> '3 kg'
    codes      123   in the format  00000        -> '00123'

Other numbers are not formatted and keep all their digits: 3.14159 in the format 0.00 stays 3.14159.
"""

import re
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import NamedTuple

# Literal text of a format section: quoted, escaped, a currency with a locale, a space of the width of a character, a
# fill character, a color, or one of the characters that need no quotes.
_LITERAL = r'"([^"]*)"|\\(.)|\[\$([^\]-]*)(?:-[^\]]*)?\]|_.|\*.|\[(?:[A-Za-z]+|Color\d+)\]|([-+$€£¥￥₩₹ ():%])'
_TEXT = re.compile(_LITERAL)
_SECTION = re.compile(rf'((?:{_LITERAL})*)([#0,?]*0|[#?]+)(?:\.([#0?]+))?((?:{_LITERAL})*)')


class _Format(NamedTuple):
    prefix: str
    suffix: str
    min_digits: int  # before the decimal point
    thousands_separator: bool
    decimals: int
    optional_decimals: int  # left out if they are zero


def shown_number(value: float, number_format: str) -> str | None:
    """Return `value` in `number_format`; None if the format adds no information or is not supported."""
    sections = number_format.split(';')
    negative = value < 0
    has_negative_section = negative and len(sections) > 1  # it writes the sign itself
    format_ = _parsed(sections[1] if has_negative_section else sections[0])
    if format_ is None:
        return None
    number = Decimal(repr(abs(value))) * (100 if '%' in format_.prefix + format_.suffix else 1)
    text = f'{number.quantize(Decimal(1).scaleb(-format_.decimals), ROUND_HALF_UP):f}'
    integer, _, decimals = text.partition('.')
    required = format_.decimals - format_.optional_decimals
    decimals = decimals[:required] + decimals[required:].rstrip('0')
    integer = integer.zfill(format_.min_digits)
    integer = f'{int(integer):,}' if format_.thousands_separator and format_.min_digits < 2 else integer
    sign = '-' if negative and not has_negative_section and text.strip('0.') else ''
    return f'{sign}{format_.prefix}{integer}{"." if decimals else ""}{decimals}{format_.suffix}'.strip()


@lru_cache
def _parsed(section: str) -> _Format | None:
    match = _SECTION.fullmatch(section)
    if match is None:
        return None
    groups = match.groups()
    head, (integer, decimals, tail) = groups[0], groups[5:8]
    prefix, suffix = _text(head), _text(tail)
    min_digits = integer.count('0')
    if not (prefix + suffix).strip('-+() :') and min_digits < 2:
        return None  # adds nothing to the number itself
    places = decimals or ''
    optional = len(places) - len(places.rstrip('#?'))
    return _Format(prefix, suffix, min_digits, ',' in integer, len(places), optional)


def _text(literals: str) -> str:
    return ''.join(next(filter(None, match.groups()), '') for match in _TEXT.finditer(literals))
