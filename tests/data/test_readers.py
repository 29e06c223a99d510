"""Readers of local files: rows with their numbers, and what each broken file is told."""

import json
import re
import zipfile

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xtune.config.sections import Source
from xtune.data.readers import read_file
from xtune.data.sources import RowSource, local_files
from xtune.errors import DataError

ROWS = [{'a': '1', 'b': 'x, "y"'}, {'a': '2', 'b': '你好 😀'}]
NUMBERED = [(1, ROWS[0]), (2, ROWS[1])]


def rows_of(path, content, **kwargs):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_file(path, **kwargs))


def workbook(path, **sheets):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


@pytest.mark.parametrize('indent', [None, 2])
@pytest.mark.parametrize('value', [ROWS, {'data': ROWS}, {'version': '1', 'data': ROWS}])
def test_json_list_or_object_with_one_list(tmp_path, value, indent):
    assert rows_of(tmp_path / 'x.json', json.dumps(value, indent=indent)) == NUMBERED


@pytest.mark.parametrize('text', ['{"a": 1}\n{"a": 2}\n', '\ufeff{"a": 1}\n\n{"a": 2}'])
def test_json_with_one_object_a_line(tmp_path, text):
    assert [row for _, row in rows_of(tmp_path / 'x.json', text)] == [{'a': 1}, {'a': 2}]


@pytest.mark.parametrize('suffix', ['json', 'jsonl'])
def test_unicode_line_separator_inside_a_text_ends_no_line(tmp_path, suffix):
    text = '{"a": "one\u2028two"}\n{"a": "three"}\n'
    assert rows_of(tmp_path / f'x.{suffix}', text) == [(1, {'a': 'one\u2028two'}), (2, {'a': 'three'})]


def test_jsonl_with_bom_and_blank_lines_counts_lines_of_the_file(tmp_path):
    assert rows_of(tmp_path / 'x.jsonl', '\ufeff\n{"a": 1}\n\n  \n{"a": 2}') == [(2, {'a': 1}), (5, {'a': 2})]


@pytest.mark.parametrize('suffix, mark', [('csv', ','), ('tsv', '\t')])
def test_csv_and_tsv_number_rows_by_their_line(tmp_path, suffix, mark):
    text = f'\ufeffa{mark}b\n1{mark}"x, ""y"""\n2{mark}"two\nlines"\n3{mark}\n'
    rows = [(2, ROWS[0]), (4, {'a': '2', 'b': 'two\nlines'}), (5, {'a': '3', 'b': ''})]
    assert rows_of(tmp_path / f'x.{suffix}', text) == rows


def test_parquet_streams_all_batches(tmp_path):
    table = pa.table({'a': list(range(2500)), 'messages': [[{'role': 'user', 'content': str(i)}] for i in range(2500)]})
    pq.write_table(table, tmp_path / 'x.parquet')
    rows = list(read_file(tmp_path / 'x.parquet'))
    assert [number for number, _ in rows] == list(range(1, 2501))
    assert rows[2400][1] == {'a': 2400, 'messages': [{'role': 'user', 'content': '2400'}]}


def test_xlsx_sheet_by_name_numbers_and_blank_rows(tmp_path):
    path = workbook(
        tmp_path / 'x.xlsx',
        Notes=[['n'], ['first sheet']],
        QA=[['Question', None, 'Answer'], ['q', 'no name', 7], [None, None, None], ['r', None, None]],
    )
    assert list(read_file(path)) == [(2, {'n': 'first sheet'})]
    assert list(read_file(path, 'QA')) == [(2, {'Question': 'q', 'Answer': 7}), (4, {'Question': 'r', 'Answer': None})]


def test_xlsx_is_read_whole_though_its_dimension_says_one_cell(tmp_path):
    path = workbook(tmp_path / 'x.xlsx', QA=[['Question', 'Answer'], ['q', 'a'], ['only q', None]])
    with zipfile.ZipFile(path) as book, zipfile.ZipFile(tmp_path / 'y.xlsx', 'w') as streamed:
        for name in book.namelist():  # some exporters write the size before they know it
            streamed.writestr(name, re.sub(rb'<dimension ref="[^"]*"', b'<dimension ref="A1"', book.read(name)))
    assert list(read_file(tmp_path / 'y.xlsx')) == list(read_file(path)) != []


def test_txt_has_one_text_a_line(tmp_path):
    rows = [(1, {'text': ' a '}), (3, {'text': 'b'})]
    assert rows_of(tmp_path / 'x.txt', '\ufeff a \r\n\r\nb') == rows


@pytest.mark.parametrize(
    'name, content, message',
    [
        ('x.jsonl', '', r'x\.jsonl is empty'),
        ('x.jsonl', '{"a": 1}\n\n{"a": }\n', r'x\.jsonl, line 3: broken JSON: Expecting value at column 7: {"a": }'),
        ('x.json', '[{"a": 1},\n {"a": 2}\n {"a": 3}]', r'x\.json, line 3: broken JSON: Expecting \',\'.* {"a": 3}'),
        ('x.json', '{"a": 1}\n{"a": 2}\n{"a" 3}\n', r'x\.json, line 3: broken JSON.* {"a" 3}'),
        ('x.json', '[{"a": 1}', r'x\.json, line 1: broken JSON'),
        ('x.json', ' \n', r'x\.json, line \d: broken JSON'),
        ('x.json', b'\xef\xbb\xbf', r'x\.json.*(empty|broken JSON)'),
        ('x.json', '"text"', r'x\.json holds a str, not a list of rows'),
        ('x.json', '{"a": 1}', r'x\.json holds one object, not a list of rows; put the rows into'),
        ('x.json', '{"train": [], "test": []}', r'x\.json holds one object, not a list of rows'),
        ('x.json', '[{"a": 1}, ["b"]]', r'x\.json, row 2: a row must be an object with named columns, got .*b'),
        ('x.jsonl', '{"a": 1}\n"b"', r'x\.jsonl, line 2: a row must be an object'),
        ('x.csv', 'a,b\n1,2\n3\n', r'x\.csv, line 3: this row has not the 2 columns of the header'),
        ('x.csv', 'a,b\n1,2\n3,4,5\n', r'x\.csv, line 3: this row has not the 2 columns'),
        ('x.txt', b'caf\xe9 x', r'x\.txt is not UTF-8 text \(.*byte.*convert it to UTF-8'),
        ('x.parquet', 'a,b', r'x\.parquet is no Parquet file'),
        ('x.xlsx', 'a,b', r'x\.xlsx is no \.xlsx workbook'),
    ],
)
def test_broken_file_is_named_with_the_place(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        rows_of(tmp_path / name, content)


def test_byte_that_is_not_utf8_is_found_where_it_is(tmp_path):
    with pytest.raises(DataError, match=r'byte 30007\b|line 3751\b'):
        rows_of(tmp_path / 'x.jsonl', b'{"a":1}\n' * 3750 + b'{"a": "\xff"}')


def test_good_rows_before_a_broken_line_are_yielded(tmp_path):
    path = tmp_path / 'x.jsonl'
    path.write_text('{"a": 1}\n{')
    assert next(read_file(path)) == (1, {'a': 1})


def test_missing_or_empty_sheet_is_named(tmp_path):
    path = workbook(tmp_path / 'x.xlsx', Train=[['a'], [1]], Test=[])
    with pytest.raises(DataError, match='has no sheet `Trian`; its sheets are Train, Test'):
        list(read_file(path, 'Trian'))
    with pytest.raises(DataError, match='the sheet `Test` is empty; its first row must name the columns'):
        list(read_file(path, 'Test'))


def test_unknown_suffix_lists_the_known(tmp_path):
    (tmp_path / 'x.pdf').write_text('x')
    with pytest.raises(DataError, match=r'type `\.pdf` are not read; known: \.json, \.jsonl, \.csv'):
        local_files(str(tmp_path / 'x.pdf'))


def test_missing_file_names_near_ones_or_the_folder(tmp_path):
    (tmp_path / 'alpaca.json').write_text('[]')
    with pytest.raises(DataError, match=r'alpaka\.json does not exist; did you mean `alpaca\.json`\?'):
        local_files(str(tmp_path / 'alpaka.json'))
    with pytest.raises(DataError, match=re.escape(f'zzz.csv does not exist (looked in {tmp_path.resolve()})')):
        local_files(str(tmp_path / 'zzz.csv'))


def test_folder_or_glob_without_data_is_an_error(tmp_path):
    (tmp_path / 'README.md').write_text('x')
    with pytest.raises(DataError, match=r'holds no \.json, .*\.txt file'):
        local_files(str(tmp_path))
    with pytest.raises(DataError, match='no file matches'):
        local_files(str(tmp_path / '*.json'))


def test_folder_and_glob_are_read_in_sorted_order_up_to_the_limit(tmp_path):
    (tmp_path / 'sub').mkdir()
    for name in ('b.jsonl', 'a.jsonl', 'sub/c.jsonl'):
        (tmp_path / name).write_text(f'{{"a": "{name}"}}\n' * 2)
    names = [row.values['a'] for row in RowSource(Source(path=str(tmp_path)))]
    assert names == ['a.jsonl', 'a.jsonl', 'b.jsonl', 'b.jsonl', 'sub/c.jsonl', 'sub/c.jsonl']
    assert len(list(RowSource(Source(path=str(tmp_path / '*.jsonl'))))) == 4
    last = list(RowSource(Source(path=str(tmp_path), limit=3)))[-1]
    assert last.place == f'{tmp_path / "b.jsonl"}, row 1'


def test_source_without_rows_is_an_error(tmp_path):
    (tmp_path / 'x.json').write_text('[]')
    with pytest.raises(DataError, match=r'x\.json has no rows'):
        RowSource(Source(path=str(tmp_path / 'x.json'))).head(5)
