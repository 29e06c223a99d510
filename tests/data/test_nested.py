"""Objects in the columns of tables: a Parquet file gives the rows of the jsonl from which it was made."""

import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xtune.config.sections import Source
from xtune.data.chat_tokenizer import ChatTokenizer
from xtune.data.encode import Encoder
from xtune.data.map_fns import openai_map_fn
from xtune.data.sources import RowSource
from xtune.templates.resolve import resolve


def called(name, arguments, properties, **schema):
    call = {'type': 'function', 'function': {'name': name, 'arguments': arguments}}
    parameters = {'type': 'object', 'properties': properties, **schema}
    return {
        'messages': [
            {'role': 'user', 'content': f'Please {name}'},
            {'role': 'assistant', 'content': None, 'tool_calls': [call]},
            {'role': 'tool', 'content': 'done'},
            {'role': 'assistant', 'content': 'It is done.'},
        ],
        'tools': [{'type': 'function', 'function': {'name': name, 'parameters': parameters}}],
    }


CALLS = [
    called('move', {'x': 0, 'y': 1}, {'x': {'type': 'integer'}, 'y': {'type': 'integer'}}, required=['x', 'y']),
    called('say', {'text': 'hello', 'to': [{'name': 'a'}, {'id': 7}]}, {'text': {'type': 'string', 'enum': ['hello']}}),
    called('wait', {}, {}),
]


def rows(path):
    return [row.values for row in RowSource(Source(str(path)))]


def written(path, given):
    path.write_text('\n'.join(map(json.dumps, given)))
    return path


def test_a_table_gives_the_same_rows_and_tokens_as_its_jsonl(tmp_path, tokenizer):
    pq.write_table(pa.Table.from_pylist(CALLS), tmp_path / 'rows.parquet')
    from_table, from_lines = rows(tmp_path / 'rows.parquet'), rows(written(tmp_path / 'rows.jsonl', CALLS))
    assert from_table[1]['tools'] == from_lines[1]['tools']
    encoder = Encoder(ChatTokenizer(tokenizer, resolve('chatml', tokenizer)), 4096, 'error')
    ids = [
        [sample.ids.tolist() for made in encoder([openai_map_fn(row) for row in given]) for sample in made]
        for given in (from_table, from_lines)
    ]
    assert len(ids[0]) == 3 and ids[0] == ids[1]


def test_null_in_jsonl_is_kept(tmp_path):
    given = called('find', {'city': None}, {'city': {'type': 'string', 'default': None}})
    assert rows(written(tmp_path / 'rows.jsonl', [given, CALLS[0]]))[0] == given


@pytest.mark.parametrize('cell', [None, [], [None, 'x'], 'x'])
def test_cells_without_objects_are_unchanged(tmp_path, cell):
    pq.write_table(pa.Table.from_pylist([{'a': cell, 'b': 1}, {'a': cell, 'b': None}]), tmp_path / 'rows.parquet')
    assert rows(tmp_path / 'rows.parquet') == [{'a': cell, 'b': 1}, {'a': cell, 'b': None}]


def test_maps_are_objects(tmp_path):
    kind = pa.map_(pa.string(), pa.struct([('n', pa.int64()), ('m', pa.int64())]))
    column = pa.array([[('x', {'n': 1}), ('y', None)], None], kind)
    pq.write_table(pa.table({'arguments': column}), tmp_path / 'rows.parquet')
    assert rows(tmp_path / 'rows.parquet') == [{'arguments': {'x': {'n': 1}, 'y': None}}, {'arguments': None}]


def test_json_columns_of_datasets_are_parsed(tmp_path):
    """`datasets` 5 writes objects that differ from row to row as JSON, nulls and all."""
    held = [{'role': 'user', 'content': None}, {'role': 'assistant', 'n': 1}]
    texts = pa.array([*map(json.dumps, held), 'no json'])
    lists = pa.ListArray.from_arrays([0, 2, 3], pa.ExtensionArray.from_storage(pa.json_(), texts))
    pq.write_table(pa.table({'messages': lists}), tmp_path / 'rows.parquet')
    assert [row['messages'] for row in rows(tmp_path / 'rows.parquet')] == [held, ['no json']]


@pytest.mark.parametrize('streaming', [False, True])
def test_hub_rows_have_no_keys_of_other_rows(monkeypatch, streaming):
    table = datasets.Dataset(pa.Table.from_pylist(CALLS))
    found = table.to_iterable_dataset() if streaming else table
    monkeypatch.setattr(datasets, 'load_dataset', lambda *_, **__: found)
    first, second, _ = (row.values for row in RowSource(Source('someone/calls'), streaming))
    assert first['tools'] == CALLS[0]['tools']
    assert second['messages'][1]['tool_calls'] == CALLS[1]['messages'][1]['tool_calls']


def test_hub_rows_of_unknown_columns(monkeypatch):
    stream = datasets.IterableDataset.from_generator(lambda: iter([{'a': [{'x': 1, 'y': None}], 'b': None}]))
    assert stream.features is None
    monkeypatch.setattr(datasets, 'load_dataset', lambda *_, **__: stream)
    assert [row.values for row in RowSource(Source('someone/set'), True)] == [{'a': [{'x': 1}], 'b': None}]
