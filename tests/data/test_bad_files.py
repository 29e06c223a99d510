"""Files that cannot be read: each is refused with its place and what to do, in bounded memory."""

import gzip
import io
import json
import re
import tracemalloc
import zipfile
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xtune.data.readers import MAX_LINE, read_file
from xtune.data.readers.json_stream import JsonStream
from xtune.data.readers.opening import lines
from xtune.errors import DataError

ROWS = b''.join(b'{"a": %d}\n' % i for i in range(3000))
ALPACA = {'instruction': 'a', 'output': 'b'}


def refused(path, content=None):
    """Return what the error says after the name of the file."""
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        list(read_file(path))
    text = str(caught.value)
    assert text.encode().startswith(str(path).encode('utf-8', 'backslashreplace')) and len(text) < len(str(path)) + 330
    return text[len(str(path)) :].lstrip(', ')


@pytest.mark.parametrize(
    'name, content, message',
    [
        ('x.jsonl', '', 'is empty'),
        ('x.jsonl', b'\xef\xbb\xbf{"a": 1}\n\n{"a": }\n', 'line 3: .* column 7: {"a": }'),
        ('x.jsonl', '{"a": 1}\n{"a": "x\n', 'line 2: .* column 9: {"a": "x'),
        ('x.jsonl', '{"a": 1}\n{"a": \n', 'line 2: .* Expecting value'),
        ('x.jsonl', '{"a": 1} {"a": 2}\n', 'line 1: .* column 10'),
        (
            'x.jsonl',
            '[\n{"a": 1}\n]',
            r'line 1: .*\[.* name it \.json',
        ),
        ('x.jsonl', '{\n"a": 1\n}', r'line 1: .* name it \.json'),
        ('x.jsonl', '[{"a": 1}]', r'line 1: .* got a list: .*name it \.json'),
        ('x.jsonl', '{"a": 1}\n"b"', r'line 2: .* got a string: .b.; .*{"text"'),
        ('x.jsonl', '[' * 200_000, 'line 1: .* nested too deeply'),
        (
            'x.json',
            '[{"a": 1},\n {"a": 2}\n {"a": 3}]',
            r"line 3: .* ',' or ']' at column 2: .*{\"a\": 3}",
        ),
        ('x.json', '[{"a": 1},\n {"a": 2,}\n]', r'line 2: .* column \d+'),
        ('x.json', '{"a": 1}\n{"a": 2}\n{"a" 3}\n', 'line 3: .* {"a" 3}'),
        ('x.json', '[{"a": 1}', 'line 1: .* truncated'),
        (
            'x.json',
            '[{"a": 1},\n{"a": "tex',
            'line 2: .* column 7.* truncated',
        ),
        ('x.json', '[{"a": 1}]\n]', 'line 2: .*the end of the file'),
        ('x.json', ' \n', 'line 2: .*a value.* truncated'),
        ('x.json', b'\xef\xbb\xbf', 'line 1: '),
        ('x.json', 'a,b\n1,2', 'line 1: .* column 1: a,b'),
        ('x.json', '[' * 200_000, 'line 1: .* nested too deeply'),
        ('x.json', '"text"', 'contains a string, not a list of rows'),
        ('x.json', '{"a": 1}', r'contains one object \(`a`\), .*\[ ... \]'),
        ('x.json', '{}', r'contains one object \(empty\)'),
        ('x.json', '{1: [{}]}', 'line 1: .*a key in double quotes at column 2'),
        ('x.json', '{"a": 1} {"a": 2}', r'contains objects outside a list; .*\[ ... \]'),
        (
            'x.json',
            '{"train": [], "test": []}',
            'contains two lists, `train` and `test`',
        ),
        ('x.json', '[{"a": 1}, ["b"]]', r"row 2: .* got a list: \['b'\]"),
        ('x.json', '["b"]', 'row 1: .*got a string: .*{"text": "..."}'),
        ('x.json', '{"data": [{"a": 1}, 5]}', 'row 2 of `data`: .* got a number: 5'),
        (
            'x.json',
            json.dumps({k: [v] for k, v in ALPACA.items()}),
            'contains a list `instruction` .*one object per row',
        ),
        (
            'x.json',
            json.dumps({k: {'0': v} for k, v in ALPACA.items()}),
            'is written by column .*`instruction`.*one object per row',
        ),
    ],
)
def test_broken_json_and_lists_of_wrong_shape(tmp_path, name, content, message):
    assert re.match(message, refused(tmp_path / name, content))


@pytest.mark.parametrize('name, text', [('x.jsonl', '{{"b": 1}}\n{}'), ('x.json', '[{{"b": 1}},\n{}]')])
@pytest.mark.parametrize(
    'row, message',
    [
        ('{"a": 1, "b": {"c": 1, "d": 2, "c": 3}}', 'duplicate key `c`'),
        ('{"\\ud800": 1, "\\ud800": 2}', r'duplicate key `\\ud800`'),
        ('{"a": -Infinity}', '-Infinity '),
    ],
)
def test_duplicate_keys_and_infinity_are_refused(tmp_path, name, text, row, message):
    assert re.match(f'line 2: {message}', refused(tmp_path / name, text.format(row)))


def test_messages_are_printable(tmp_path):
    assert refused(tmp_path / 'x.json', '["\\ud800"]').isprintable()
    assert refused(tmp_path / 'x.json', '{"\\ud800": [1]}').isprintable()
    assert refused(tmp_path / 'x\udcff.jsonl', '{').isprintable()


@pytest.mark.parametrize(
    'name, content, message',
    [
        (
            'x.csv',
            'a,b\n1,2\n3\n',
            'line 3: this row has 1 field.* 2 columns .delimiter: `,`.;',
        ),
        ('x.csv', 'a;b\n1;2\n3,4,5\n', 'line 3: this row has 1 field.* 2 columns .delimiter: `;`'),
        ('x.tsv', 'a\tb\n"1\n2"\t3\t4\n', 'lines 2 to 3: this row has 3 fields.* 2 columns .delimiter: tab'),
        ('x.csv', 'a,b,c,b,a\n1,2,3,4,5\n', 'has duplicate columns `a`, `b`'),
        ('x.csv', ',\n1,2\n', 'has no column names'),
        ('x.csv', ' \n\n', 'has no column names'),
        (
            'x.csv',
            'a,b\n1,2\n3,"x\n4,5\n',
            'line 3: the quoted field .*line 4: unexpected',
        ),
        (
            'x.csv',
            'a,b\n1,"x\n4,5\n"6",7\n',
            'line 2: the quoted field .*line 4: ',
        ),
        ('x.csv', 'a,b\n1,"say "hi" now"\n', 'line 2: the quoted field '),
        ('x.csv', 'a,b\n"1\n""2""\n3","x\n' + 'y\n' * 20_000, 'line 4: the quoted field .*still open on line 10002'),
        ('x.csv', 'a,"b\n' + 'y\n' * 20_000, 'line 1: the quoted field .*still open on line 10001'),
    ],
)
def test_broken_tables(tmp_path, name, content, message):
    assert re.match(message, refused(tmp_path / name, content))


@pytest.mark.parametrize(
    'name, content, message',
    [
        ('x.txt', b'caf\xe9 x', r'is not UTF-8 text \(line 1, byte 4: 0xe9, .*; if it is text, convert it to UTF-8'),
        ('x.jsonl', ROWS + b'{"a": "\xff"}\n' + ROWS, r'is not UTF-8 text \(line 3001, byte 8: 0xff'),
        (
            'x.json',
            b'[' + b'{"\xc3\xa9":1},\n' * 200_000 + b'{"\xe9":1}]',
            r'is not UTF-8 text \(line 200001, byte 3: 0xe9',
        ),
        ('x.csv.gz', gzip.compress(b'a,b\n1,\xe9\n', mtime=0), r'is not UTF-8 text \(line 2, byte 3'),
        ('x.txt', b'ab\xe4\xbd', r'is not UTF-8 text \(line 1, byte 3: 0xe4, unexpected end'),
        ('x.json', b'\x89PNG\r\n\x1a\n', r'is not UTF-8 text \(line 1, byte 1: 0x89'),
        ('x.csv', 'a,b\n'.encode('utf-16'), 'is UTF-16 text; convert it to UTF-8, e.g. `iconv -f UTF-16'),
        ('x.txt', 'a'.encode('utf-32'), 'is UTF-32 text; convert it to UTF-8'),
        ('x.json', '[{"a": 1}]'.encode('utf-16-le'), 'line 1: .*NUL byte; .*UTF-16'),
        ('x.json', '[{"a": 1},\n{"a": "\0"}]', 'line 2: .*NUL byte'),
        ('x.jsonl', '{"a": 1}\n{"a": "\0"}', 'line 2: .*NUL byte'),
        ('x.csv', 'a\n1\n\0\n', 'line 3: .*NUL byte'),
        ('x.txt', 'a\n\0\n', 'line 2: .*NUL byte'),
        ('x.jsonl', gzip.compress(b'{}', mtime=0), r'is compressed with gzip; .*\.gz'),
        ('x.jsonl.gz', b'{}', r'is not compressed with gzip; .*\.gz'),
        ('x.jsonl.gz', gzip.compress(b'', mtime=0), 'is empty'),
        ('x.jsonl.gz', gzip.compress(ROWS, mtime=0)[:-50], 'is damaged or truncated '),
        ('x.csv', b'PK\x03\x04', r'is a zip archive or a workbook; .*\.xlsx'),
        ('x.jsonl', b'PAR1\x15\x00', r'is a Parquet file; name it \.parquet'),
        ('x.xlsx', b'\xd0\xcf\x11\xe0\xa1\xb1', r'is an \.xls workbook, .*save it as \.xlsx'),
        ('x.json', '<!DOCTYPE html><html>', 'is a web page; download the file itself'),
        ('x.parquet', 'version https://git-lfs.github.com/spec/v1\n', 'is a Git LFS pointer.*`git lfs pull`'),
        ('x.parquet.gz', 'x', r'has an unsupported type; .*\.json, .*text formats with \.gz'),
        ('x.jsonl.zst', 'x', 'has an unsupported type'),
    ],
)
def test_binary_files_and_wrong_suffixes(tmp_path, name, content, message):
    assert re.match(message, refused(tmp_path / name, content))


@pytest.mark.parametrize(
    'name, start', [('x.jsonl', ''), ('x.csv', 'a,b\n'), ('x.csv', 'a,b\n1,"'), ('x.txt', ''), ('x.json', '[{"a": "')]
)
def test_huge_line_is_refused_in_bounded_memory(tmp_path, name, start):
    block = gzip.compress(b'x' * 10_000_000, mtime=0)
    (tmp_path / f'{name}.gz').write_bytes(gzip.compress(start.encode(), mtime=0) + block * 50)
    tracemalloc.start()
    try:
        message = refused(tmp_path / f'{name}.gz')
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_LINE
    finally:
        tracemalloc.stop()
    line = 2 if name == 'x.csv' else 1
    assert re.match(rf'line {line}: .* is longer than 67,108,864 characters; split it or leave it out', message)


def test_lines_and_values_as_long_as_the_limit_pass_and_longer_ones_do_not():
    assert list(lines(io.StringIO('1234\n12345'), Path('x'), limit=5)) == [(1, '1234\n'), (2, '12345')]
    with pytest.raises(DataError, match='x, line 2: this line is longer than 5 characters'):
        list(lines(io.StringIO('1234\n123456'), Path('x'), limit=5))
    rows = [{'a': 'x' * 20}] * 500_000  # one line of 13 blocks
    assert list(JsonStream(io.StringIO(json.dumps(rows)), Path('x'), limit=50).elements()) == rows
    with pytest.raises(DataError, match='x, line 3: the value that starts here is longer than 9,000,000 characters'):
        list(JsonStream(io.StringIO('[1,\n2,\n"' + 'x' * 20_000_000), Path('x'), limit=9_000_000).elements())


@pytest.mark.parametrize(
    'cells, message',
    [
        ([['a', 'b', 'a', 'b'], [1, 2, 3, 4]], 'sheet `QA`: has duplicate columns `a`, `b`'),
        ([[], [None]], 'has an empty sheet `QA`'),
        (
            [['a', 'b'], ['x', 'y'], ['x', '=A2&"!"']],
            'sheet `QA`, cell B3: this formula has no stored value',
        ),
        ([['a', '="b"'], ['x', 'y']], 'sheet `QA`, cell B1: this formula has no stored value'),
        ([['a', 'b'], ['x', '#N/A']], 'sheet `QA`, cell B2: this cell contains the error #N/A'),
        ([['a'], ['#REF!']], 'sheet `QA`, cell A2: this cell contains the error #REF!'),
    ],
)
def test_workbook_with_bad_cells(tmp_path, cells, message):
    book = openpyxl.Workbook()
    book.active.title = 'QA'
    for row in cells:
        book.active.append(row)
    book.save(tmp_path / 'x.xlsx')
    assert refused(tmp_path / 'x.xlsx').startswith(message)


def test_damaged_workbooks(tmp_path):
    book = openpyxl.Workbook()
    book.active.append(['a'])
    book.save(tmp_path / 'x.xlsx')
    message = r'is not a valid \.xlsx workbook \('
    assert re.match(message, refused(tmp_path / 'text.xlsx', 'a,b'))
    assert re.match(message, refused(tmp_path / 'cut.xlsx', (tmp_path / 'x.xlsx').read_bytes()[:2000]))
    for part in ('sheet1', 'workbook.xml', 'Content_Types'):
        with zipfile.ZipFile(tmp_path / 'x.xlsx') as old, zipfile.ZipFile(tmp_path / 'y.xlsx', 'w') as new:
            for name in old.namelist():
                new.writestr(name, old.read(name)[: 150 if part in name else None])
        assert re.match(message, refused(tmp_path / 'y.xlsx')), part


def test_parquet_that_is_none_or_damaged(tmp_path):
    path = tmp_path / 'x.parquet'
    pq.write_table(
        pa.table({'a': [f'{i * 7919 % 100_003:08d}' * 4 for i in range(50_000)]}), path, row_group_size=10_000
    )
    whole = path.read_bytes()
    assert re.match(r'is not a valid Parquet file \(', refused(path, b'a,b'))
    assert re.match('is not a valid Parquet file', refused(path, whole[: len(whole) // 2]))
    middle = len(whole) * 7 // 10
    broken = whole[:middle] + b'\xff' * 3000 + whole[middle + 3000 :]
    assert re.match(r'is damaged after row [1-4]\d000 ', refused(path, broken))


def test_parquet_with_two_columns_of_one_name_or_text_that_is_not_utf8(tmp_path):
    path = tmp_path / 'x.parquet'
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=['a', 'a']), path)
    assert refused(path).startswith('has duplicate columns `a`')
    latin = pa.array([b'ok'] * 1500 + [b'caf\xe9']).view(pa.string())
    pq.write_table(pa.table({'a': ['x'] * 1501, 'b': latin}), path)
    assert refused(path).startswith('row 1501: column `b` is not UTF-8 text')
