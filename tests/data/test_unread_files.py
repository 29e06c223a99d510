"""Files, sheets, splits and parts of files of a source that are not read are reported; metadata is not."""

import json

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict
from workbooks import workbook

from xtune.config.sections import Source
from xtune.data.readers.sheets import column_letters
from xtune.data.sources import RowSource, files_of
from xtune.data.unused_data import UnusedData
from xtune.errors import DataError

ROW = {'instruction': 'a', 'output': 'b'}


def source(path, elsewhere=(), **options):
    return RowSource(
        Source(str(path), **options), elsewhere=files_of(Source(str(path), **other) for other in elsewhere)
    )


def unread_names(path, **options):
    """The names between the first backquotes of what is not read, after all rows were read."""
    rows = source(path, **options)
    list(rows)
    return [what.split('`')[1] for what in rows.unread]


@pytest.fixture
def folder(tmp_path):
    """Return a function that makes a folder of files, those of rows with one row each."""

    def make(*names):
        for name in names:
            path = tmp_path / 'rows' / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(ROW) + '\n', encoding='utf-8')
        return tmp_path / 'rows'

    return make


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        (['a.jsonl', 'notes.md'], ['.md']),
        (['a.jsonl', 'deep/notes.md', 'b.docx', 'c.jsonl.zst', 'd.PDF'], ['.docx', '.zst', '.pdf', '.md']),
        (['a.jsonl', 'README.md', 'LICENSE', '.gitattributes', '.cache/x.bin', 'CITATION.cff', 'loader.py'], []),
        (['train.jsonl', 'test.jsonl', 'valid.jsonl'], ['test', 'validation']),
        (['a.jsonl', 'Makefile'], ['Makefile']),
    ],
)
def test_other_types_and_splits_in_a_folder_are_reported_and_metadata_is_not(folder, names, expected):
    assert sorted(unread_names(folder(*names))) == sorted(expected)


def test_files_that_another_source_reads_are_not_reported(folder):
    path = folder('train.jsonl', 'test.jsonl', 'dev.jsonl')
    assert unread_names(path, elsewhere=[{'split': 'test'}, {'split': 'dev'}]) == []
    assert unread_names(path, elsewhere=[{'split': 'test'}]) == ['validation']
    assert unread_names(path / 'train.jsonl') == []


def test_matches_of_a_glob_without_a_reader_are_reported(folder):
    path = folder('a.jsonl', 'test.jsonl', 'a.docx', 'notes.md')
    assert unread_names(path / '*.jsonl') == [] and unread_names(path / 'a*') == ['.docx']
    assert [file.name for file in source(path / '*.md').files] == ['notes.md']
    with pytest.raises(DataError, match=r'\*\*/\*.md'):
        (path / 'a.jsonl').unlink(), (path / 'test.jsonl').unlink()
        source(path)


def test_other_sheets_with_content_are_reported_unless_a_sheet_is_selected(tmp_path):
    sheets = {'一月': [['q', 'a'], [1, 2]], '二月': [['q', 'a'], [3, 4]], 'Sheet3': []}
    path = workbook(tmp_path / 'x.xlsx', **sheets)
    assert unread_names(path) == unread_names(tmp_path) == ['二月']
    assert unread_names(path, sheet='一月') == [] == unread_names(path, elsewhere=[{'sheet': '二月'}])
    rows = source(path, sheet='*')
    assert [row.values for row in rows] == [{'q': 1, 'a': 2}, {'q': 3, 'a': 4}] and rows.unread == []
    assert list(rows)[1].place == f'{path}, sheet `二月`, row 2'


def test_other_keys_of_a_json_file_with_rows_are_reported(tmp_path):
    path = tmp_path / 'x.json'
    path.write_text(json.dumps({'version': 2, 'empty': '', 'data': [ROW], 'info': {'by': 'me'}}))
    assert unread_names(path) == ['version', 'info']
    path.write_text(json.dumps({'data': [ROW], 'none': None}))
    assert unread_names(path) == []


@pytest.mark.parametrize(('first', 'named'), [(['0', '1', '2'], []), (['1', '2', '3'], []), (['x', '1', ''], ['1'])])
def test_a_csv_column_without_a_name_is_reported_unless_it_is_an_index(tmp_path, first, named):
    lines = ''.join(f'{number},q,a\n' for number in first)
    (tmp_path / 'x.csv').write_text(f',question,answer\n{lines}')
    assert unread_names(tmp_path / 'x.csv') == named


def test_a_sheet_column_without_a_name_and_a_cell_beyond_the_columns_are_reported(tmp_path):
    path = workbook(tmp_path / 'x.xlsx', QA=[['q', 'a', None, 'b'], ['1', '2', 'lost', '3'], ['both', None, None, '4']])
    book = openpyxl.load_workbook(path)
    book['QA'].merge_cells('A3:B3')
    book.save(path)
    assert unread_names(path) == ['a', 'C']
    assert [column_letters(index) for index in (0, 25, 26, 701, 702)] == ['A', 'Z', 'AA', 'ZZ', 'AAA']


def test_ignored_names_are_not_reported():
    unused = UnusedData(
        unread=['files of type `.md`: a.md', 'split `test`: b', 'column `C` of sheet `QA` of x: no name']
    )
    unused.ignore(['.md', 'test', 'QA'])
    assert unused.unread == ['column `C` of sheet `QA` of x: no name']


def test_a_saved_data_set_is_read_and_its_other_splits_are_reported(tmp_path):
    one, two = Dataset.from_list([ROW] * 3), Dataset.from_list([{'instruction': 'c', 'output': 'd'}])
    one.save_to_disk(tmp_path / 'one', num_shards=2)
    rows = source(tmp_path / 'one')
    assert [row.values for row in rows] == [ROW] * 3 and rows.unread == []
    DatasetDict({'train': one, 'extra': two}).save_to_disk(tmp_path / 'two')
    assert [row.values for row in source(tmp_path / 'two', split='extra')] == [{'instruction': 'c', 'output': 'd'}]
    assert len(list(source(tmp_path / 'two'))) == 3 and unread_names(tmp_path / 'two') == ['extra']
    with pytest.raises(DataError, match='`test`.* train, extra'):
        source(tmp_path / 'two', split='test')
    next((tmp_path / 'one').glob('*.arrow')).unlink()
    with pytest.raises(DataError, match='lacks data-00000'):
        source(tmp_path / 'one')


@pytest.mark.parametrize('form', ['stream', 'file'])
def test_arrow_files_of_both_forms(tmp_path, form):
    table = pa.table({'a': list(range(2500))})
    new = pa.ipc.new_stream if form == 'stream' else pa.ipc.new_file
    with pa.OSFile(str(tmp_path / 'x.arrow'), 'wb') as sink, new(sink, table.schema) as writer:
        writer.write_table(table)
    rows = list(source(tmp_path / 'x.arrow'))
    assert [row.values['a'] for row in rows] == list(range(2500)) and rows[-1].number == 2500
    data = (tmp_path / 'x.arrow').read_bytes()
    (tmp_path / 'x.arrow').write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r'x\.arrow is '):
        list(source(tmp_path / 'x.arrow'))


@pytest.mark.parametrize(
    'column', [pa.array([b'x']), pa.array([b'xy'], pa.binary(2)), pa.array([{'bytes': b'x', 'path': 'p'}])]
)
def test_a_column_of_bytes_is_not_an_error(tmp_path, column):
    pq.write_table(pa.table({'a': ['b'], 'hash': column}), tmp_path / 'x.parquet')
    [row] = source(tmp_path / 'x.parquet')
    assert row.values['a'] == 'b' and row.values['hash'] == column[0].as_py()
