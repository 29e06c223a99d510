"""Restore lists and objects in columns of Arrow tables to their form before the table was written.

All objects of a column in a table have the same keys, with null for a key that a row did not have:

    rows      {"arguments": {"x": 1}}                  {"arguments": {"text": "hi"}}
    table     {"arguments": {"x": 1, "text": null}}    {"arguments": {"x": null, "text": "hi"}}

These keys are removed, so that a model is trained on the same text as from the rows. A null in the original rows is
indistinguishable from them and is removed too, unless the column has the type `arrow.json`, which `datasets` writes for
objects of different keys: such columns are parsed as JSON.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

Clean = Callable[[Any], Any]


def to_rows(batch: 'pa.RecordBatch') -> list[dict[str, Any]]:
    """Return the rows of `batch` without the keys that the table added to objects."""
    rows = batch.to_pylist()
    for name, clean in cleaners(batch.schema, as_text=True).items():
        for row in rows:
            row[name] = clean(row[name])
    return rows


def cleaners(schema: 'pa.Schema', as_text: bool) -> dict[str, Clean]:
    """Return a function for each column that may contain objects; it removes the keys that the table added to a cell.

    Args:
        schema: The schema of the table.
        as_text: Cells of type `arrow.json` are text, as in pyarrow; `datasets` has parsed them.
    """
    by_column = {field.name: _cleaner(field, as_text) for field in schema}
    return {name: clean for name, clean in by_column.items() if clean is not None}


def row_cleaner(features: Any) -> Callable[[dict], dict]:
    """Return a function that does the same to a row of a `datasets` data set with these `features` (None: unknown).

    Cells that are null are kept, so each row has all columns.
    """
    if features is None:
        return lambda row: {name: without_nulls(cell) for name, cell in row.items()}
    by_column = cleaners(features.arrow_schema, as_text=False)
    return lambda row: {name: by_column[name](cell) if name in by_column else cell for name, cell in row.items()}


def without_nulls(value: Any) -> Any:
    """Return `value` without object keys whose value is null, for tables of unknown columns."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def _cleaner(field: 'pa.Field', as_text: bool) -> Clean | None:
    import pyarrow.types as types

    arrow_type = field.type
    # Versions of pyarrow that do not know the extension type have its name in the metadata only.
    extension = getattr(arrow_type, 'extension_name', None) or (field.metadata or {}).get(b'ARROW:extension:name', b'')
    if extension in ('arrow.json', b'arrow.json'):
        return _parse_json if as_text else None
    if types.is_struct(arrow_type):
        return _struct_cleaner({inner.name: _cleaner(inner, as_text) for inner in arrow_type})
    if types.is_list(arrow_type) or types.is_large_list(arrow_type) or types.is_fixed_size_list(arrow_type):
        return _list_cleaner(_cleaner(arrow_type.value_field, as_text))
    return _map_cleaner(_cleaner(arrow_type.item_field, as_text)) if types.is_map(arrow_type) else None


def _struct_cleaner(inner: dict[str, Clean | None]) -> Clean:
    def clean(value: Any) -> Any:
        if not isinstance(value, dict):  # null, or an image that `datasets` has decoded
            return value
        return {
            key: item if (clean_item := inner.get(key)) is None else clean_item(item)
            for key, item in value.items()
            if item is not None
        }

    return clean


def _list_cleaner(inner: Clean | None) -> Clean | None:
    if inner is None:
        return None
    return lambda value: [inner(item) for item in value] if isinstance(value, list) else value


def _map_cleaner(inner: Clean | None) -> Clean:
    def clean(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return {key: item if inner is None else inner(item) for key, item in value}

    return clean


def _parse_json(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):  # plain text
        return value
