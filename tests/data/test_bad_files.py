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
from golden import short

from xtune.data.readers import MAX_LINE, read_file
from xtune.data.readers.json_stream import JsonStream
from xtune.data.readers.opening import lines
from xtune.errors import DataError

ROWS = b''.join(b'{"a": %d}\n' % i for i in range(3000))
ALPACA = {'instruction': 'a', 'output': 'b'}


def of_library(text):
    """Return a message without the text in parentheses, which a library wrote."""
    return re.sub(r'\(.*\)', '(<reason>)', text)


def refused(path, content=None):
    """Return what the error says after the name of the file."""
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        list(read_file(path))
    text = str(caught.value)
    assert text.encode().startswith(str(path).encode('utf-8', 'backslashreplace')) and len(text) < len(str(path)) + 330
    return text[len(str(path)) :].lstrip(', ')


BROKEN_JSON = [
    ('x.jsonl', ''),
    ('x.jsonl', b'\xef\xbb\xbf{"a": 1}\n\n{"a": }\n'),
    ('x.jsonl', '{"a": 1}\n{"a": "x\n'),
    ('x.jsonl', '{"a": 1}\n{"a": \n'),
    ('x.jsonl', '{"a": 1} {"a": 2}\n'),
    ('x.jsonl', '[\n{"a": 1}\n]'),
    ('x.jsonl', '{\n"a": 1\n}'),
    ('x.jsonl', '[{"a": 1}]'),
    ('x.jsonl', '{"a": 1}\n"b"'),
    ('x.jsonl', '[' * 200_000),
    ('x.json', '[{"a": 1},\n {"a": 2}\n {"a": 3}]'),
    ('x.json', '[{"a": 1},\n {"a": 2,}\n]'),
    ('x.json', '{"a": 1}\n{"a": 2}\n{"a" 3}\n'),
    ('x.json', '[{"a": 1}'),
    ('x.json', '[{"a": 1},\n{"a": "tex'),
    ('x.json', '[{"a": 1}]\n]'),
    ('x.json', ' \n'),
    ('x.json', b'\xef\xbb\xbf'),
    ('x.json', 'a,b\n1,2'),
    ('x.json', '[' * 200_000),
    ('x.json', '"text"'),
    ('x.json', '{"a": 1}'),
    ('x.json', '{}'),
    ('x.json', '{1: [{}]}'),
    ('x.json', '{"a": 1} {"a": 2}'),
    ('x.json', '{"train": [], "test": []}'),
    ('x.json', '[{"a": 1}, ["b"]]'),
    ('x.json', '["b"]'),
    ('x.json', '{"data": [{"a": 1}, 5]}'),
    ('x.json', json.dumps({k: [v] for k, v in ALPACA.items()})),
    ('x.json', json.dumps({k: {'0': v} for k, v in ALPACA.items()})),
]


def test_broken_json_and_lists_of_wrong_shape(tmp_path, golden):
    golden('data.files_json', {short(case): refused(tmp_path / case[0], case[1]) for case in BROKEN_JSON})


@pytest.mark.parametrize('name, text', [('x.jsonl', '{{"b": 1}}\n{}'), ('x.json', '[{{"b": 1}},\n{}]')])
@pytest.mark.parametrize(
    'row, value',
    [
        ('{"a": 1, "b": {"c": 1, "d": 2, "c": 3}}', '`c`'),
        ('{"\\ud800": 1, "\\ud800": 2}', r'`\ud800`'),
        ('{"a": -Infinity}', '-Infinity '),
    ],
)
def test_duplicate_keys_and_infinity_are_refused(tmp_path, name, text, row, value):
    message = refused(tmp_path / name, text.format(row))
    assert message.startswith('line 2: ') and value in message


def test_messages_are_printable(tmp_path):
    assert refused(tmp_path / 'x.json', '["\\ud800"]').isprintable()
    assert refused(tmp_path / 'x.json', '{"\\ud800": [1]}').isprintable()
    assert refused(tmp_path / 'x\udcff.jsonl', '{').isprintable()


BROKEN_TABLES = [
    ('x.csv', 'a,b\n1,2\n3\n'),
    ('x.csv', 'a;b\n1;2\n3,4,5\n'),
    ('x.tsv', 'a\tb\n"1\n2"\t3\t4\n'),
    ('x.csv', 'a,b,c,b,a\n1,2,3,4,5\n'),
    ('x.csv', ',\n1,2\n'),
    ('x.csv', ' \n\n'),
    ('x.csv', 'a,b\n1,2\n3,"x\n4,5\n'),
    ('x.csv', 'a,b\n1,"x\n4,5\n"6",7\n'),
    ('x.csv', 'a,b\n1,"say "hi" now"\n'),
    ('x.csv', 'a,b\n"1\n""2""\n3","x\n' + 'y\n' * 20_000),
    ('x.csv', 'a,"b\n' + 'y\n' * 20_000),
]


def test_broken_tables(tmp_path, golden):
    golden('data.files_tables', {short(case): refused(tmp_path / case[0], case[1]) for case in BROKEN_TABLES})


BINARY = {
    'one byte that is not UTF-8': ('x.txt', b'caf\xe9 x'),
    'one such byte after 3000 rows': ('x.jsonl', ROWS + b'{"a": "\xff"}\n' + ROWS),
    'one such byte after 4 MB': ('x.json', b'[' + b'{"\xc3\xa9":1},\n' * 200_000 + b'{"\xe9":1}]'),
    'one such byte, compressed': ('x.csv.gz', gzip.compress(b'a,b\n1,\xe9\n', mtime=0)),
    'a character cut off': ('x.txt', b'ab\xe4\xbd'),
    'a PNG image': ('x.json', b'\x89PNG\r\n\x1a\n'),
    'UTF-16': ('x.csv', 'a,b\n'.encode('utf-16')),
    'UTF-32': ('x.txt', 'a'.encode('utf-32')),
    'UTF-16 without a byte order mark': ('x.json', '[{"a": 1}]'.encode('utf-16-le')),
    'a NUL byte in JSON': ('x.json', '[{"a": 1},\n{"a": "\0"}]'),
    'a NUL byte in JSON Lines': ('x.jsonl', '{"a": 1}\n{"a": "\0"}'),
    'a NUL byte in a table': ('x.csv', 'a\n1\n\0\n'),
    'a NUL byte in text': ('x.txt', 'a\n\0\n'),
    'gzip without .gz': ('x.jsonl', gzip.compress(b'{}', mtime=0)),
    '.gz without gzip': ('x.jsonl.gz', b'{}'),
    'gzip of nothing': ('x.jsonl.gz', gzip.compress(b'', mtime=0)),
    'gzip cut off': ('x.jsonl.gz', gzip.compress(ROWS, mtime=0)[:-50]),
    'a zip archive': ('x.csv', b'PK\x03\x04'),
    'Parquet called .jsonl': ('x.jsonl', b'PAR1\x15\x00'),
    'a workbook of Excel 97': ('x.xlsx', b'\xd0\xcf\x11\xe0\xa1\xb1'),
    'a web page': ('x.json', '<!DOCTYPE html><html>'),
    'a Git LFS pointer': ('x.parquet', 'version https://git-lfs.github.com/spec/v1\n'),
    'Parquet in gzip': ('x.parquet.gz', 'x'),
    'another compression': ('x.jsonl.zst', 'x'),
}


def test_binary_files_and_wrong_suffixes(tmp_path, golden):
    golden('data.files_binary', {case: refused(tmp_path / name, content) for case, (name, content) in BINARY.items()})


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
    assert message.startswith(f'line {line}: ') and '67,108,864' in message


def test_lines_and_values_as_long_as_the_limit_pass_and_longer_ones_do_not():
    assert list(lines(io.StringIO('1234\n12345'), Path('x'), limit=5)) == [(1, '1234\n'), (2, '12345')]
    with pytest.raises(DataError, match='x, line 2: .* 5 characters'):
        list(lines(io.StringIO('1234\n123456'), Path('x'), limit=5))
    rows = [{'a': 'x' * 20}] * 500_000  # one line of 13 blocks
    assert list(JsonStream(io.StringIO(json.dumps(rows)), Path('x'), limit=50).elements()) == rows
    with pytest.raises(DataError, match='x, line 3: .* 9,000,000 characters'):
        list(JsonStream(io.StringIO('[1,\n2,\n"' + 'x' * 20_000_000), Path('x'), limit=9_000_000).elements())


CELLS = [
    [['a', 'b', 'a', 'b'], [1, 2, 3, 4]],
    [[], [None]],
    [['a', 'b'], ['x', 'y'], ['x', '=A2&"!"']],
    [['a', '="b"'], ['x', 'y']],
    [['a', 'b'], ['x', '#N/A']],
    [['a'], ['#REF!']],
]


def test_workbook_with_bad_cells(tmp_path, golden):
    texts = {}
    for cells in CELLS:
        book = openpyxl.Workbook()
        book.active.title = 'QA'
        for row in cells:
            book.active.append(row)
        book.save(tmp_path / 'x.xlsx')
        texts[str(cells)] = refused(tmp_path / 'x.xlsx')
    golden('data.files_workbooks', texts)


def test_damaged_workbooks(tmp_path, golden):
    book = openpyxl.Workbook()
    book.active.append(['a'])
    book.save(tmp_path / 'x.xlsx')
    texts = {
        'text': refused(tmp_path / 'text.xlsx', 'a,b'),
        'the first half': refused(tmp_path / 'cut.xlsx', (tmp_path / 'x.xlsx').read_bytes()[:2000]),
    }
    for part in ('sheet1', 'workbook.xml', 'Content_Types'):
        with zipfile.ZipFile(tmp_path / 'x.xlsx') as old, zipfile.ZipFile(tmp_path / 'y.xlsx', 'w') as new:
            for name in old.namelist():
                new.writestr(name, old.read(name)[: 150 if part in name else None])
        texts[f'{part} is cut off'] = refused(tmp_path / 'y.xlsx')
    golden('data.files_damaged_workbooks', {case: of_library(text) for case, text in texts.items()})


def test_parquet_that_is_none_or_damaged(tmp_path, golden):
    path = tmp_path / 'x.parquet'
    pq.write_table(
        pa.table({'a': [f'{i * 7919 % 100_003:08d}' * 4 for i in range(50_000)]}), path, row_group_size=10_000
    )
    whole = path.read_bytes()
    texts = {'text': refused(path, b'a,b'), 'the first half': refused(path, whole[: len(whole) // 2])}
    middle = len(whole) * 7 // 10
    broken = whole[:middle] + b'\xff' * 3000 + whole[middle + 3000 :]
    texts['damaged'] = refused(path, broken)
    assert re.search(r' row [1-4]\d000 ', texts['damaged'])
    golden('data.files_parquet', {case: of_library(text) for case, text in texts.items()}, {'row 30000': 'row <n>'})


def test_parquet_with_two_columns_of_one_name_or_text_that_is_not_utf8(tmp_path):
    path = tmp_path / 'x.parquet'
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=['a', 'a']), path)
    assert '`a`' in refused(path)
    latin = pa.array([b'ok'] * 1500 + [b'caf\xe9']).view(pa.string())
    pq.write_table(pa.table({'a': ['x'] * 1501, 'b': latin}), path)
    message = refused(path)
    assert message.startswith('row 1501: ') and '`b`' in message
