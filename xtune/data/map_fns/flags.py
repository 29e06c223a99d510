"""Read whether a message is trained, from the field names that data sets use."""

from typing import Any

from ...messages import RowError
from .columns import is_empty

_TRAINED = ('train', 'loss', 'weight', 'loss_weight', 'loss_scale')
_MASKED = ('mask', 'masked')
_DETAIL = ('train_detail', 'training_detail')
_NAMES = frozenset(_TRAINED + _MASKED + _DETAIL)
_TRUE, _FALSE = ('true', '1', '1.0'), ('false', '0', '0.0')
_NO_FRACTION = 'a message is trained as a whole or not at all: use 0 or 1'


def train_flag(entry: dict, place: str, text: str = '') -> dict[str, bool]:
    """Return `{'train': bool}`, or {} if the message has no such field.

    The fields are `train`, `loss`, `weight`, `loss_weight` or `loss_scale` (a bool, 0, 1 or a word), `mask` or `masked`
    with the opposite meaning, and `train_detail`, ranges of the characters of `text` that all have the same value.

    Raises:
        RowError: The value is something else, such as a fraction. `place` names the message in the error.
    """
    if _NAMES.isdisjoint(entry):
        return {}
    flags = []
    for names, read in ((_TRAINED, _flag), (_MASKED, _mask)):
        for name in names:
            if name in entry and not is_empty(entry[name]):
                flags.append(read(entry[name], f'{place} has {name}={entry[name]!r:.40}'))
    for name in _DETAIL:
        if name in entry and entry[name]:
            flags.append(_detail(entry[name], len(text), f'{place}, {name}'))
    return {'train': all(flags)} if flags else {}


def _flag(value: Any, where: str) -> bool:
    if isinstance(value, (bool, int, float)):
        if value in (0, 1):
            return bool(value)
        raise RowError('a loss weight is not 0 or 1', f'{where}; {_NO_FRACTION}')
    word = value.strip().lower() if isinstance(value, str) else ''
    if word in (*_TRUE, *_FALSE):
        return word in _TRUE
    raise RowError('a training flag is not true or false', where)


def _mask(value: Any, where: str) -> bool:
    return not _flag(value, where)


def _detail(ranges: Any, length: int, where: str) -> bool:
    """Return the flag of `ranges`, {begin_offset, end_offset (inclusive), train}, over all `length` characters."""
    try:
        parts = sorted((int(part['begin_offset']), int(part['end_offset']), bool(part['train'])) for part in ranges)
    except (TypeError, LookupError, ValueError) as error:
        raise RowError('training ranges without begin_offset, end_offset and train', where) from error
    covered = 0
    for begin, end, _ in parts:
        covered = end + 1 if begin <= covered else covered
    if covered < length or len({train for *_, train in parts}) != 1:
        raise RowError('only part of a message is to be trained', f'{where}: {ranges!r:.60}; {_NO_FRACTION}')
    return parts[0][2]
