"""Lists and objects inside the columns of Arrow tables, as the rows had them before they became a table.

A table gives every object of a column the keys of all of them, with null where a row had none:

    rows      {"arguments": {"x": 1}}                  {"arguments": {"text": "hi"}}
    a table   {"arguments": {"x": 1, "text": null}}    {"arguments": {"x": null, "text": "hi"}}

Such keys are taken out again, so that a model is trained on the same text as from the rows. A null that somebody wrote
cannot be told from them, unless the table keeps it as JSON: columns of type `arrow.json`, which `datasets` writes for
objects that differ, are read as what they hold.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

Clean = Callable[[Any], Any]


def to_rows(batch: 'pa.RecordBatch') -> list[dict[str, Any]]:
    """Return the rows of `batch`, without the keys that the table has added to objects in its columns."""
    rows = batch.to_pylist()
    for name, clean in cleaners(batch.schema, as_text=True).items():
        for row in rows:
            row[name] = clean(row[name])
    return rows


def cleaners(schema: 'pa.Schema', as_text: bool) -> dict[str, Clean]:
    """Return for each column that may hold objects the function that undoes what a table does to a cell.

    Args:
        schema: That of the table.
        as_text: JSON is given as text, as pyarrow does; `datasets` has parsed it.
    """
    found = {field.name: _cleaner(field, as_text) for field in schema}
    return {name: clean for name, clean in found.items() if clean is not None}


def row_cleaner(features: Any) -> Callable[[dict], dict]:
    """Return the function that does the same to a row of a `datasets` data set with these `features` (None: unknown).

    Cells that are null stay, so that each row has all columns.
    """
    if features is None:
        return lambda row: {name: without_nulls(cell) for name, cell in row.items()}
    found = cleaners(features.arrow_schema, as_text=False)
    return lambda row: {name: found[name](cell) if name in found else cell for name, cell in row.items()}


def without_nulls(value: Any) -> Any:
    """Return `value` without the keys of objects that hold null, for tables of unknown columns."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def _cleaner(field: 'pa.Field', as_text: bool) -> Clean | None:
    import pyarrow.types as types

    kind = field.type
    # Versions of pyarrow that do not know the type say so in the metadata only.
    extension = getattr(kind, 'extension_name', None) or (field.metadata or {}).get(b'ARROW:extension:name', b'')
    if extension in ('arrow.json', b'arrow.json'):
        return _parsed if as_text else None
    if types.is_struct(kind):
        return _of_struct({inner.name: _cleaner(inner, as_text) for inner in kind})
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _of_list(_cleaner(kind.value_field, as_text))
    return _of_map(_cleaner(kind.item_field, as_text)) if types.is_map(kind) else None


def _of_struct(inner: dict[str, Clean | None]) -> Clean:
    def clean(value: Any) -> Any:
        if not isinstance(value, dict):  # null, or an image that `datasets` has decoded
            return value
        return {
            key: item if (each := inner.get(key)) is None else each(item)
            for key, item in value.items()
            if item is not None
        }

    return clean


def _of_list(inner: Clean | None) -> Clean | None:
    if inner is None:
        return None
    return lambda value: [inner(item) for item in value] if isinstance(value, list) else value


def _of_map(inner: Clean | None) -> Clean:
    def clean(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return {key: item if inner is None else inner(item) for key, item in value}

    return clean


def _parsed(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):  # then it is text
        return value
