"""Rows that are token ids already: no template, no tokenizer."""

from ...messages import RowError, Tokens
from ...registry import map_fn
from .columns import is_empty, listed


@map_fn('tokenized')
def tokenized_map_fn(row: dict) -> Tokens:
    r"""Token ids: `input_ids` with or without `labels`, or `tokens`.

    Row:
        {"tokens": [1, -333, -352, -1621, 103028, 13, 2]}
    Result:
        ids: [1, 333, 352, 1621, 103028, 13, 2]
        trained: [true, false, false, false, true, true, true]

    In `tokens` a negative value is that id without a loss. A label of -100 is no loss, any other one is the id
    itself. Ids whose `attention_mask` is 0 are padding and left out.
    """
    if row.get('tokens') is not None:
        signed = _whole(listed(row, 'tokens'), 'tokens')
        return Tokens([abs(i) for i in signed], [i >= 0 for i in signed])
    ids = _whole(listed(row, 'input_ids'), 'input_ids')
    labels = ids if is_empty(row.get('labels')) else _whole(listed(row, 'labels'), 'labels')
    mask = [1] * len(ids) if is_empty(row.get('attention_mask')) else _whole(listed(row, 'attention_mask'), 'mask')
    if not len(ids) == len(labels) == len(mask):
        raise RowError(
            'ids and labels differ in length', f'{len(ids)} ids, {len(labels)} labels, {len(mask)} of attention_mask'
        )
    for at, (token, label) in enumerate(zip(ids, labels, strict=True)):
        if label not in (token, -100):
            raise RowError('labels are neither the ids nor -100', f'position {at} has id {token} and label {label}')
    kept = [(token, label != -100) for token, label, seen in zip(ids, labels, mask, strict=True) if seen]
    return Tokens([token for token, _ in kept], [trained for _, trained in kept])


def _whole(values: list, name: str) -> list[int]:
    for at, value in enumerate(values):
        if type(value) is not int:
            raise RowError(f'column `{name}` is not a list of whole numbers', f'position {at} holds {value!r:.60}')
    return values
