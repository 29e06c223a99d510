"""Pretokenized rows: token ids, used without a template and a tokenizer."""

from ...messages import RowError, Tokens
from ...registry import map_fn
from .columns import is_empty, list_column


@map_fn('tokenized')
def tokenized_map_fn(row: dict) -> Tokens:
    r"""Token ids: `input_ids` with or without `labels`, or `tokens`.

    Row:
        {"tokens": [1, -333, -352, -1621, 103028, 13, 2]}
    Result:
        ids: [1, 333, 352, 1621, 103028, 13, 2]
        trained: [true, false, false, false, true, true, true]

    In `tokens`, a negative value is an id without loss. A label is -100 (no loss) or equal to the id. Ids whose
    `attention_mask` is 0 are padding and are removed.
    """
    if row.get('tokens') is not None:
        signed = _integers(list_column(row, 'tokens'), 'tokens')
        return Tokens([abs(i) for i in signed], [i >= 0 for i in signed])
    ids = _integers(list_column(row, 'input_ids'), 'input_ids')
    labels = ids if is_empty(row.get('labels')) else _integers(list_column(row, 'labels'), 'labels')
    mask = (
        [1] * len(ids) if is_empty(row.get('attention_mask')) else _integers(list_column(row, 'attention_mask'), 'mask')
    )
    if not len(ids) == len(labels) == len(mask):
        raise RowError(
            'ids and labels differ in length', f'{len(ids)} ids, {len(labels)} labels, {len(mask)} of attention_mask'
        )
    for position, (token, label) in enumerate(zip(ids, labels, strict=True)):
        if label not in (token, -100):
            raise RowError(
                'labels are neither the ids nor -100', f'position {position} has id {token} and label {label}'
            )
    kept = [(token, label != -100) for token, label, attended in zip(ids, labels, mask, strict=True) if attended]
    return Tokens([token for token, _ in kept], [trained for _, trained in kept])


def _integers(values: list, name: str) -> list[int]:
    for position, value in enumerate(values):
        if type(value) is not int:
            raise RowError(f'column `{name}` is not a list of integers', f'position {position} is {value!r:.60}')
    return values
