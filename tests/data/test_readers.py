"""Readers of local files: rows with their numbers. What broken files are told is in test_bad_files.py."""

import datetime
import gzip
import json
import math
import re
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from workbooks import workbook

from xtune.config.sections import Source
from xtune.data.readers import READERS, read_file, reader_suffix
from xtune.data.sources import RowSource, local_files
from xtune.errors import DataError

ROWS = [{'a': '1', 'b': 'x, "y"'}, {'a': '2', 'b': '你好 😀'}]
NUMBERED = [(1, ROWS[0]), (2, ROWS[1])]


def rows_of(path, content, **kwargs):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_file(path, **kwargs))


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
def test_csv_and_tsv_number_rows_by_the_line_they_start_on(tmp_path, suffix, mark):
    text = f'\ufeffa{mark}b\n1{mark}"x, ""y"""\n2{mark}"two\nlines"\n3{mark}\n'
    rows = [(2, ROWS[0]), (3, {'a': '2', 'b': 'two\nlines'}), (5, {'a': '3', 'b': ''})]
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


def test_xlsx_with_a_wrong_dimension_is_read_completely(tmp_path):
    path = workbook(tmp_path / 'x.xlsx', QA=[['Question', 'Answer'], ['q', 'a'], ['only q', None]])
    with zipfile.ZipFile(path) as book, zipfile.ZipFile(tmp_path / 'y.xlsx', 'w') as streamed:
        for name in book.namelist():  # some exporters write the size before they know it
            streamed.writestr(name, re.sub(rb'<dimension ref="[^"]*"', b'<dimension ref="A1"', book.read(name)))
    assert list(read_file(tmp_path / 'y.xlsx')) == list(read_file(path)) != []


def test_txt_has_one_text_a_line(tmp_path):
    rows = [(1, {'text': ' a '}), (3, {'text': 'b'})]
    assert rows_of(tmp_path / 'x.txt', '\ufeff a \r\n\r\nb') == rows


@pytest.mark.parametrize('header', ['a{0}b', '"a"{0}"b"'])
@pytest.mark.parametrize('mark', [',', ';', '\t', '|'])
@pytest.mark.parametrize('suffix', ['csv', 'tsv'])
def test_delimiter_is_taken_from_a_header_that_is_one_column_by_the_usual_one(tmp_path, suffix, mark, header):
    text = f'{header}\n1{mark}2\n'.format(mark)
    assert rows_of(tmp_path / f'x.{suffix}', text) == [(2, {'a': '1', 'b': '2'})]


def test_delimiters_in_rows_do_not_split_a_single_column(tmp_path):
    assert rows_of(tmp_path / 'x.csv', 'text\na;b|c\n') == [(2, {'text': 'a;b|c'})]


def test_header_of_two_lines(tmp_path):
    assert rows_of(tmp_path / 'x.csv', 'a,"b;\nc"\n1,2\n') == [(3, {'a': '1', 'b;\nc': '2'})]
    assert rows_of(tmp_path / 'x.csv', '"a;\nb",c\n1,2\n') == [(3, {'a;\nb': '1', 'c': '2'})]


def test_csv_leaves_out_columns_without_a_name_and_empty_rows(tmp_path):
    assert rows_of(tmp_path / 'x.csv', '\n,a, ,b\n0,1,2,3\n,,,\n\n1,4,5,6\n') == [
        (3, {'a': '1', 'b': '3'}),
        (6, {'a': '4', 'b': '6'}),
    ]


def test_csv_of_old_line_ends_and_fields_longer_than_the_default_of_the_library(tmp_path):
    assert rows_of(tmp_path / 'x.csv', 'a,b\r1,2\r') == [(2, {'a': '1', 'b': '2'})]
    long = 'x' * 300_000
    assert rows_of(tmp_path / 'x.csv', f'a,b\n"{long}",2\n') == [(2, {'a': long, 'b': '2'})]


def test_json_list_does_not_depend_on_block_size(tmp_path, monkeypatch):
    rows = [{'n': -1.5e-7, 'ok': True, 's': '\\ " \n 😀', 'm': [{'r': 'u'}] * (i % 4), 'z': None} for i in range(40)]
    wrapped = {'version': 12345678, 'data': rows, 'more': {'k': 1.25}}
    for value, indent in [(rows, None), (rows, 1), (wrapped, None), (wrapped, 2)]:
        (tmp_path / 'x.json').write_text(json.dumps(value, indent=indent))
        for size in (1, 2, 3, 7, 64, 1000):
            monkeypatch.setattr('xtune.data.readers.json_stream.BLOCK', size)
            assert list(read_file(tmp_path / 'x.json')) == list(enumerate(rows, 1)), (indent, size)


def test_nan_passes_as_an_empty_cell_and_half_characters_pass(tmp_path):
    assert math.isnan(rows_of(tmp_path / 'x.jsonl', '{"a": NaN}')[0][1]['a'])
    for name, text in [('x.jsonl', '{"a": "\\ud800"}'), ('x.json', '[{"a": "\\ud800"}]')]:
        assert rows_of(tmp_path / name, text) == [(1, {'a': '\ud800'})]


@pytest.mark.parametrize(
    'name, text, row',
    [
        ('x.jsonl.gz', '\ufeff{"a": "1"}\n', (1, {'a': '1'})),
        ('x.JSON.GZ', '[{"a": "1"}]', (1, {'a': '1'})),
        ('x.json.gz', '{"a": "1"}\n{"a": "2"}', (1, {'a': '1'})),
        ('x.csv.gz', 'a\n1\n', (2, {'a': '1'})),
        ('x.tsv.gz', 'a\tb,c\n1\t2\n', (2, {'a': '1', 'b,c': '2'})),
        ('x.txt.gz', 'one', (1, {'text': 'one'})),
    ],
)
def test_compressed_text(tmp_path, name, text, row):
    assert rows_of(tmp_path / name, gzip.compress(text.encode()))[0] == row


def test_reader_suffix_names_the_format_or_none():
    assert {reader_suffix(Path(f'a.b{suffix}')) for suffix in READERS} == set(READERS)
    assert reader_suffix(Path('A.JSONL.GZ')) == '.jsonl'
    assert [reader_suffix(Path(n)) for n in ('a.parquet.gz', 'a.xlsx.gz', 'a.gz', 'a.json.zst', 'a', 'json')] == [
        None
    ] * 6


def test_parquet_dictionary_and_nested_columns(tmp_path):
    values = {'a': pa.array(['x', 'y', 'x']).dictionary_encode(), 'm': [[{'role': 'user', 'tags': ['t']}], [], None]}
    pq.write_table(pa.table(values), tmp_path / 'x.parquet')
    assert list(read_file(tmp_path / 'x.parquet'))[0] == (1, {'a': 'x', 'm': [{'role': 'user', 'tags': ['t']}]})
    assert [row['a'] for _, row in read_file(tmp_path / 'x.parquet')] == ['x', 'y', 'x']


def test_xlsx_values_are_plain_and_the_header_is_the_first_row_with_cells(tmp_path):
    moment = datetime.datetime(2024, 1, 5, 6, 7)
    cells = [5.0, 2.5, moment, moment.date(), moment.time(), True, 'a_x000D_\nb', datetime.timedelta(hours=30)]
    plain = [5, 2.5, '2024-01-05T06:07:00', '2024-01-05', '06:07:00', True, 'a\r\nb', '30:00:00']
    path = workbook(tmp_path / 'x.xlsx', QA=[[], [None, ''], [*'abcdefg', 8.0], cells, []])
    rows = list(read_file(path))
    assert rows == [(4, dict(zip([*'abcdefg', '8'], plain, strict=True)))]
    assert [type(value) for value in rows[0][1].values()] == [type(value) for value in plain]


def test_xlsx_formula_gives_the_stored_value_also_an_empty_text(tmp_path):
    path = workbook(tmp_path / 'x.xlsx', QA=[['a', 'b', 'c'], ['x', '=1+1', '=""']])
    with zipfile.ZipFile(path) as book, zipfile.ZipFile(tmp_path / 'y.xlsx', 'w') as saved:
        for name in book.namelist():  # as a spreadsheet program saves it
            xml = re.sub(rb'(<f>1\+1</f>)<v ?/?>(</v>)?', rb'\1<v>2</v>', book.read(name))
            saved.writestr(name, re.sub(rb'<c r="C2">(<f>""</f>)', rb'<c r="C2" t="str">\1', xml))
    assert list(read_file(tmp_path / 'y.xlsx')) == [(2, {'a': 'x', 'b': 2, 'c': None})]


def test_good_rows_before_a_broken_line_are_yielded(tmp_path):
    path = tmp_path / 'x.jsonl'
    path.write_text('{"a": 1}\n{')
    assert next(read_file(path)) == (1, {'a': 1})


def test_missing_or_empty_sheet_is_named(tmp_path):
    path = workbook(tmp_path / 'x.xlsx', Train=[['a'], [1]], Test=[])
    with pytest.raises(DataError, match='`Trian`.* Train, Test'):
        list(read_file(path, 'Trian'))
    with pytest.raises(DataError, match='`Test`'):
        list(read_file(path, 'Test'))


def test_unknown_suffix_lists_the_known(tmp_path):
    (tmp_path / 'x.pdf').write_text('x')
    with pytest.raises(DataError, match=r'`\.pdf`.*: \.json, \.jsonl, \.csv'):
        local_files(str(tmp_path / 'x.pdf'))


def test_missing_file_names_near_ones_or_the_folder(tmp_path):
    (tmp_path / 'alpaca.json').write_text('[]')
    with pytest.raises(DataError, match=r'alpaka\.json does not exist; did you mean `alpaca\.json`\?'):
        local_files(str(tmp_path / 'alpaka.json'))
    with pytest.raises(DataError, match=re.escape(f'zzz.csv does not exist (looked in {tmp_path.resolve()})')):
        local_files(str(tmp_path / 'zzz.csv'))


def test_folder_or_glob_without_data_is_an_error(tmp_path):
    (tmp_path / 'README.md').write_text('x')
    with pytest.raises(DataError, match=r'has no \.json, .*\.txt file'):
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
