"""Switches of a message that say whether it is trained, under the names that data sets give them."""

from typing import Any

from ...messages import RowError
from .columns import is_empty

_TRAINED = ('train', 'loss', 'weight', 'loss_weight', 'loss_scale')
_MASKED = ('mask', 'masked')
_DETAIL = ('train_detail', 'training_detail')
_NAMES = frozenset(_TRAINED + _MASKED + _DETAIL)
_TRUE, _FALSE = ('true', '1', '1.0'), ('false', '0', '0.0')
_NO_FRACTION = 'a reply is trained or not: use 0 or 1'


def trained(entry: dict, place: str, text: str = '') -> dict[str, bool]:
    """Return `{'train': ...}` if a message says so: `train`, `loss`, `weight`, `loss_weight` or `loss_scale` as a bool,
    0, 1 or a word; `mask` or `masked` with the opposite meaning; `train_detail`, ranges of the characters of `text`,
    if they agree.

    Raises:
        RowError: The switch is something else, such as a fraction; `place` says where.
    """
    if _NAMES.isdisjoint(entry):
        return {}
    given = []
    for names, read in ((_TRAINED, _flag), (_MASKED, _mask)):
        for name in names:
            if name in entry and not is_empty(entry[name]):
                given.append(read(entry[name], f'{place} has {name}={entry[name]!r:.40}'))
    for name in _DETAIL:
        if name in entry and entry[name]:
            given.append(_detail(entry[name], len(text), f'{place}, {name}'))
    return {'train': all(given)} if given else {}


def _flag(value: Any, where: str) -> bool:
    if isinstance(value, (bool, int, float)):
        if value in (0, 1):
            return bool(value)
        raise RowError('a loss weight is neither zero nor one', f'{where}; {_NO_FRACTION}')
    word = value.strip().lower() if isinstance(value, str) else ''
    if word in (*_TRUE, *_FALSE):
        return word in _TRUE
    raise RowError('a flag of training is neither true nor false', where)


def _mask(value: Any, where: str) -> bool:
    return not _flag(value, where)


def _detail(ranges: Any, length: int, where: str) -> bool:
    """Return what `ranges`, {begin_offset, end_offset (inclusive), train}, say of all `length` characters."""
    try:
        parts = sorted((int(part['begin_offset']), int(part['end_offset']), bool(part['train'])) for part in ranges)
    except (TypeError, LookupError, ValueError) as error:
        raise RowError('ranges of training without begin_offset, end_offset and train', where) from error
    at = 0
    for begin, end, _ in parts:
        at = end + 1 if begin <= at else at
    if at < length or len({train for *_, train in parts}) != 1:
        raise RowError('only part of a reply is to be trained', f'{where}: {ranges!r:.60}; {_NO_FRACTION}')
    return parts[0][2]
