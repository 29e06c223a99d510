"""Columns and keys that a map function does not read are reported as not used."""

import json

import pytest

from xtune.config.sections import Source
from xtune.data.chat_tokenizer import ChatTokenizer
from xtune.data.encode import Encoder
from xtune.data.encode_rows import CHUNK
from xtune.data.key_usage import has_content
from xtune.data.prepare import prepare
from xtune.data.report import Report
from xtune.data.tracked_dict import TrackedDict, parse_json
from xtune.data.worker_pool import MIN_CHUNKS_FOR_POOL
from xtune.errors import DataError
from xtune.messages import AFTER_REPLY, exchange
from xtune.templates.resolve import resolve


def either_map_fn(row):
    """Read a different column depending on `kind`."""
    return exchange(row['q'], row['a'] if row['kind'] == 'a' else row['b'])


def whole_map_fn(row):
    """Read all columns without naming them."""
    texts = {**row}
    return exchange(texts['q'], json.dumps(texts))


def careful_map_fn(row):
    """Test for a column without reading it."""
    return exchange(row['q'], 'yes' if 'extra' in row else 'no')


@pytest.fixture
def unused(tokenizer, tmp_path):
    """Return a function that prepares rows and returns the report lines on unused data."""

    def unused(rows, map_fn='auto', num_proc=1, strict=False, **source):
        path = tmp_path / 'rows.jsonl'
        path.write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
        encoder = Encoder(ChatTokenizer(tokenizer, resolve('chatml', tokenizer)), 128, 'truncate')
        _, report = prepare(
            Source(str(path), map_fn, **source), encoder, num_proc=num_proc, max_bad_rows=0.0, strict=strict
        )
        return [line.replace(f' in {path}', '') for line in report.unused.lines()]

    return unused


def alpaca(**more):
    return {'instruction': 'Add.', 'input': '2, 3', 'output': '5', **more}


def chat(**more):
    return {'messages': [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello!', **more}]}


@pytest.mark.parametrize('row', [alpaca(), chat(), chat(train=True), chat(loss=1), {'prompt': 'a', 'response': 'b'}])
def test_rows_without_unused_data(unused, row):
    assert unused([row] * 3) == []


@pytest.mark.parametrize('nothing', [None, '', '  ', [], {}, {'a': None}, [None]])
def test_columns_without_content_are_not_reported(unused, nothing):
    assert not has_content(nothing) and unused([alpaca(extra=nothing)]) == []


def test_columns_and_keys_are_counted_with_the_first_example(unused):
    rows = [alpaca(), alpaca(url='x', score=0), alpaca(url='y')]
    assert unused(rows) == [
        "not used: column `url` (2 rows, such as 'x',, row 2)",
        'not used: column `score` (1 row, such as 0,, row 2)',
    ]
    assert unused([chat(rating=3)] * 2) == ['not used: key `messages[assistant].rating` (2 rows, such as 3,, row 1)']


def test_keys_inside_content_parts_are_reported(unused):
    part = {'type': 'text', 'text': 'Hi', 'cache_control': {'type': 'ephemeral'}}
    row = {'messages': [{'role': 'user', 'content': [part]}, {'role': 'assistant', 'content': 'Hello!'}]}
    [line] = unused([row])
    assert '`messages[user].content[].cache_control`' in line


def test_a_dict_that_is_passed_on_as_a_whole_is_used(unused):
    assert unused([{'q': 'a', 'more': {'x': 1}}], map_fn=f'{__name__}.whole_map_fn') == []


def test_a_column_that_is_read_in_other_rows_is_used(unused):
    rows = [{'q': '1', 'kind': kind, 'a': 'x', 'b': 'y'} for kind in 'ab' * 300]
    assert unused(rows, map_fn=f'{__name__}.either_map_fn') == []
    assert unused(rows[:1], map_fn=f'{__name__}.either_map_fn') != []


def test_testing_for_a_column_is_not_reading_it(unused):
    [line] = unused([{'q': 'a', 'extra': 'b'}], map_fn=f'{__name__}.careful_map_fn')
    assert 'column `extra`' in line


def test_counts_do_not_depend_on_the_number_of_processes(unused):
    rows = [alpaca(**({'url': str(i)} if i % 7 == 0 else {})) for i in range(MIN_CHUNKS_FOR_POOL * CHUNK + 10)]
    alone = unused(rows)
    assert len(alone) == 1 and f'({len(rows) // 7 + 1} rows' in alone[0]
    rows[0]['url'] = '00'  # another cache key
    assert unused(rows, num_proc=2) == [alone[0].replace("'0'", "'00'")]


def test_turns_after_the_last_reply_are_reported(unused):
    row = chat()
    row['messages'].append({'role': 'user', 'content': 'Thanks!'})
    [line] = unused([row])
    assert AFTER_REPLY in line and '1 row' in line and "user: 'Thanks!'" in line


def test_strict_refuses_unused_data_and_names_it(unused):
    assert unused([alpaca()], strict=True) == []
    with pytest.raises(DataError, match='(?s)column `url`.*train_dataset.ignore'):
        unused([alpaca(url='x')], strict=True)
    assert unused([alpaca(url='x')], strict=True, ignore=['url']) == []


def test_a_report_is_the_same_after_json(unused):
    report = Report()
    report.unused.count('column `a`', 'here, row 1', '3', 2)
    again = Report.from_json(json.loads(json.dumps(report.to_json())))
    assert again.unused.lines() == report.unused.lines() != []


@pytest.mark.parametrize(
    'read',
    [
        lambda row: row['a'],
        lambda row: row.get('a'),
        lambda row: row.pop('a'),
        lambda row: dict(row),
        lambda row: {**row},
        lambda row: row | {},
        lambda row: {} | row,
        lambda row: list(row.values()),
        lambda row: row.copy(),
        lambda row: json.dumps(row),
    ],
)
def test_every_way_to_read_is_recorded(read):
    row = TrackedDict({'a': 1})
    list(row), 'a' in row, len(row), row.keys()
    assert not row.read_keys
    read(row)
    assert row.read_keys == {'a'}


def test_json_text_of_a_tracked_row_is_tracked():
    assert isinstance(parse_json(TrackedDict({}), '[{"a": 1}]')[0], TrackedDict)
    assert type(parse_json({}, '[{"a": 1}]')[0]) is dict
