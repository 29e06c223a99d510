"""Numbers of a workbook as a spreadsheet shows them, where the number alone says something else.

    45 %       0.45  in the format  0%           -> '45%'
    currency   12.5  in the format  "€"#,##0.00  -> '€12.50'
    units      3     in the format  0" kg"       -> '3 kg'
    codes      123   in the format  00000        -> '00123'

Other numbers are given as they are stored, with all their digits: 3.14159 in the format 0.00 stays 3.14159.
"""

import re
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import NamedTuple

# Text of a section: quoted, escaped, a currency with a language, space as wide as a character, a filler, a colour.
_PIECE = r'"([^"]*)"|\\(.)|\[\$([^\]-]*)(?:-[^\]]*)?\]|_.|\*.|\[(?:[A-Za-z]+|Color\d+)\]|([-+$€£¥￥₩₹ ():%])'
_TEXT = re.compile(_PIECE)
_SECTION = re.compile(rf'((?:{_PIECE})*)([#0,?]*0|[#?]+)(?:\.([#0?]+))?((?:{_PIECE})*)')


class _Form(NamedTuple):
    before: str
    after: str
    whole: int  # digits at least
    grouped: bool
    decimals: int
    optional: int  # decimals that are left out if they are zero


def shown_number(value: float, number_format: str) -> str | None:
    """Return `value` as `number_format` shows it; None if the number says as much, or the format is not known."""
    sections = number_format.split(';')
    negative = value < 0
    own = negative and len(sections) > 1  # it writes the sign itself
    form = _parsed(sections[1] if own else sections[0])
    if form is None:
        return None
    number = Decimal(repr(abs(value))) * (100 if '%' in form.before + form.after else 1)
    text = f'{number.quantize(Decimal(1).scaleb(-form.decimals), ROUND_HALF_UP):f}'
    whole, _, decimals = text.partition('.')
    keep = form.decimals - form.optional
    decimals = decimals[:keep] + decimals[keep:].rstrip('0')
    whole = whole.zfill(form.whole)
    whole = f'{int(whole):,}' if form.grouped and form.whole < 2 else whole
    sign = '-' if negative and not own and text.strip('0.') else ''
    return f'{sign}{form.before}{whole}{"." if decimals else ""}{decimals}{form.after}'.strip()


@lru_cache
def _parsed(section: str) -> _Form | None:
    match = _SECTION.fullmatch(section)
    if match is None:
        return None
    groups = match.groups()
    head, (whole, decimals, tail) = groups[0], groups[5:8]
    before, after = _text(head), _text(tail)
    digits = whole.count('0')
    if not (before + after).strip('-+() :') and digits < 2:
        return None  # the number itself says as much
    places = decimals or ''
    return _Form(before, after, digits, ',' in whole, len(places), len(places) - len(places.rstrip('#?')))


def _text(pieces: str) -> str:
    return ''.join(next(filter(None, match.groups()), '') for match in _TEXT.finditer(pieces))
