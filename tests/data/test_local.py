"""From a path to local files: which files of a folder or glob are selected, and the errors if there are none."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xtune.config.sections import Source
from xtune.data.local import BUNDLED, local_files
from xtune.data.sources import RowSource
from xtune.errors import DataError


@pytest.fixture
def folder(tmp_path):
    """Return a function that makes a folder of files, each with one row that holds its name, and returns its path."""

    def make(*names, folder='rows'):
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == '.parquet':
                pq.write_table(pa.table({'text': [name]}), path)
            elif path.suffix == '.gz':
                path.write_bytes(gzip.compress(json.dumps({'text': name}).encode() + b'\n'))
            else:
                path.write_text(json.dumps({'text': name}) + '\n', encoding='utf-8')
        return tmp_path / folder

    return make


def names(path, split='train'):
    """Names of the files that are meant, below the deepest folder without a glob sign."""
    root = Path(*[part for part in Path(path).parts if not set(part) & set('*?[')])
    root = root.parent if root.is_file() else root
    return [file.relative_to(root).as_posix() for file in local_files(str(path), split)]


def refusal(path, split='train'):
    with pytest.raises(DataError) as caught:
        local_files(str(path), split)
    return str(caught.value)


HUB = ('train-00000-of-00002.parquet', 'train-00001-of-00002.parquet', 'test-00000-of-00001.parquet')
WORDS = ('a_train.jsonl', 'a_valid.jsonl', 'b.dev.jsonl', 'eval_1.jsonl', 'test.jsonl')
NESTED = ('validation/en/part-0.jsonl', 'train/en/part-0.jsonl', 'train/zh/part-1.jsonl', 'test/x.jsonl')


@pytest.mark.parametrize(
    ('files', 'split', 'chosen'),
    [
        (HUB, 'train', HUB[:2]),
        (HUB, 'test', HUB[2:]),
        (WORDS, 'train', WORDS[:1]),
        (WORDS, 'validation', WORDS[1:4]),
        (WORDS, 'val', WORDS[1:4]),
        (WORDS, 'test', WORDS[4:]),
        (NESTED, 'train', NESTED[1:3]),
        (NESTED, 'dev', NESTED[:1]),
        (('test/train.jsonl', 'train/test.jsonl'), 'test', ('train/test.jsonl',)),  # the nearest part counts
        (('part-1.jsonl', 'part-0.jsonl'), 'train', ('part-0.jsonl', 'part-1.jsonl')),
        (
            ('extra.jsonl', 'test.jsonl'),
            'train',
            ('extra.jsonl',),
        ),  # beside a told split, what is untold is for training
        (('latest.jsonl', 'contest.csv', 'trained.json'), 'train', ('contest.csv', 'latest.jsonl', 'trained.json')),
        (('TRAIN.jsonl', 'Test2.jsonl'), 'test', ('Test2.jsonl',)),
    ],
)
def test_the_files_of_the_split_are_selected_from_a_folder(folder, files, split, chosen):
    assert names(folder(*files), split) == list(chosen)


def test_a_folder_gives_all_supported_formats_and_nothing_else(folder):
    path = folder('a.json', 'b.jsonl.gz', 'c.parquet', 'd/e.csv', 'd/f.txt')
    for other in ('notes.md', 'dataset_infos.yaml', 'rows.parquet.gz', 'rows.jsonl.zip', 'rows.jsonl.tmp'):
        (path / other).write_text('x')
    assert names(path) == ['a.json', 'b.jsonl.gz', 'c.parquet', 'd/e.csv', 'd/f.txt']


def test_hidden_files_and_folders_are_skipped_unless_named(folder, monkeypatch):
    path = folder('a.jsonl', '.b.jsonl', '.cache/c.jsonl', 'd/._e.jsonl')
    assert names(path) == ['a.jsonl'] == names(path / '*.jsonl')
    assert local_files(str(path / '.b.jsonl')) == [path / '.b.jsonl']
    hidden = folder('a.jsonl', folder='.hidden')  # a hidden folder that is named is meant
    assert names(hidden) == ['a.jsonl']


def test_rows_of_a_parquet_folder_are_in_the_order_of_its_files(folder):
    path = folder(*reversed(HUB))
    rows = list(RowSource(Source(str(path))))
    assert [row.values['text'] for row in rows] == list(HUB[:2])
    assert [row.place for row in rows] == [f'{path / name}, row 1' for name in HUB[:2]]
    assert [row.values['text'] for row in RowSource(Source(str(path), split='test'))] == [HUB[2]]


@pytest.mark.parametrize(
    ('pattern', 'chosen'),
    [
        ('*.jsonl', ['a.jsonl', 'test.jsonl']),
        ('?.*', ['a.jsonl', 'b.csv', 'z.csv.gz']),
        ('[bt]*', ['b.csv', 'test.jsonl']),
        ('**/*.jsonl', ['a.jsonl', 'sub/deep/d.jsonl', 'sub/dev.jsonl', 'test.jsonl']),
        ('sub/*', ['dev.jsonl']),
        ('*.gz', ['z.csv.gz']),
    ],
)
def test_a_glob_selects_its_matches(folder, pattern, chosen):
    path = folder('a.jsonl', 'b.csv', 'test.jsonl', 'sub/dev.jsonl', 'sub/deep/d.jsonl', 'z.csv.gz', 'readme.md')
    assert names(path / pattern) == chosen


def test_a_glob_selects_a_requested_split(folder):
    path = folder('a/train.jsonl', 'a/test.jsonl', 'b/test.jsonl')
    assert names(path / '*/*.jsonl', 'test') == ['a/test.jsonl', 'b/test.jsonl']
    message = refusal(path / '*/*.jsonl', 'validation')
    assert '`validation`' in message and message.endswith(': test, train')


def test_a_single_file_is_selected_even_if_its_name_contains_another_split(folder):
    path = folder('test.jsonl', 'plain.jsonl')
    assert names(path / 'test.jsonl') == names(path / 'test.jsonl', 'test') == ['test.jsonl']
    message = refusal(path / 'plain.jsonl', 'validation')
    assert message.startswith(f'{path / "plain.jsonl"} ') and '`validation`' in message and message.endswith(': train')


def test_a_split_that_no_file_name_contains_is_an_error(folder):
    message = refusal(folder('part-0.jsonl', 'part-1.jsonl'), 'validation')
    assert '`validation`' in message and message.endswith(': train')
    assert 'split `train[:5]`' in refusal(folder('part-0.jsonl'), 'train[:5]')
    path = folder('part-0.jsonl', folder='set/validation')  # the folder itself tells it
    assert names(path, 'valid') == names(path / '*.jsonl', 'valid') == names(path / 'part-0.jsonl', 'valid')
    assert names(path) == ['part-0.jsonl']


def test_a_folder_without_the_split_lists_the_existing_ones(folder, golden):
    path = folder('dev.jsonl', 'test.jsonl')
    golden('data.unknown_split', {split: refusal(path, split) for split in ('train', 'exam')})
    assert refusal(path) == refusal(path, 'train')


UNREADABLE = [
    'rows',
    'rows/*.jsonl',
    'rows/**/*',
    'rows/a.docx',
    'rows/a.parquet.gz',
    'rows/readmee.md',
    'rows/zzzzz.jsonl',
    'gone/rows.jsonl',
]


def test_a_path_without_readable_files_is_an_error(tmp_path, golden):
    (tmp_path / 'rows').mkdir()
    (tmp_path / 'rows' / 'readme.md').write_text('x')
    (tmp_path / 'rows' / 'a.parquet.gz').write_text('x')
    (tmp_path / 'rows' / 'a.docx').write_text('x')
    messages = {path: refusal(tmp_path / path) for path in UNREADABLE}
    assert all(str(tmp_path / path) in message for path, message in messages.items())
    golden('data.paths', messages)


@pytest.mark.parametrize('path', ['', ' '])
def test_an_empty_path_is_not_the_current_folder(folder, monkeypatch, path):
    monkeypatch.chdir(folder('a.jsonl'))
    assert 'empty path' in refusal(path)
    assert names('.') == ['a.jsonl']


def test_an_existing_file_with_glob_characters_in_its_name(folder):
    path = folder('a[1].jsonl', 'a1.jsonl')
    assert local_files(str(path / 'a[1].jsonl')) == [path / 'a[1].jsonl']


def test_home_and_relative_paths_and_bundled_sets(folder, monkeypatch, tmp_path):
    path = folder('a.jsonl', 'self_cognition')
    monkeypatch.setenv('HOME', str(tmp_path))
    assert local_files('~/rows/a.jsonl') == [path / 'a.jsonl'] == local_files('~/rows/*.jsonl')
    monkeypatch.chdir(path)
    assert local_files('a.jsonl') == [Path('a.jsonl')]
    (path / 'self_cognition').unlink()
    assert local_files('self_cognition') == [BUNDLED['self_cognition']]
    assert local_files('someone/alpaca') == local_files('alpaca') == []  # these can only be hub data sets
