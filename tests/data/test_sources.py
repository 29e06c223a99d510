"""Rows of a source: their order, places and limits. Hub sets come through `datasets`, which hands out one made here."""

import datasets
import pytest

from xtune.config.sections import Source
from xtune.data.sources import RowSource
from xtune.errors import DataError

ROWS = [{'instruction': f'question {i}', 'output': f'reply {i}'} for i in range(5)]


@pytest.fixture
def hub(monkeypatch):
    """Let `datasets` hand out ROWS; return what it is asked for."""
    asked = []

    def load_dataset(path, name, split, streaming):
        asked.append((path, name, split, streaming))
        made = datasets.Dataset.from_list(ROWS)
        return made.to_iterable_dataset() if streaming else made

    monkeypatch.setattr(datasets, 'load_dataset', load_dataset)
    return asked


@pytest.fixture
def files(tmp_path):
    """Two files of three rows in a folder; the rows are numbered 0 to 5."""
    for number, name in enumerate(('a.csv', 'b.jsonl')):
        rows = range(3 * number, 3 * number + 3)
        lines = ['text', *map(str, rows)] if name == 'a.csv' else [f'{{"text": "{i}"}}' for i in rows]
        (tmp_path / name).write_text('\n'.join(lines) + '\n')
    return tmp_path


def test_hub_id_gives_its_rows_and_a_fingerprint_of_their_content(hub):
    source = RowSource(Source('someone/alpaca', name='en', split='train[:5]', limit=3))
    assert hub == [('someone/alpaca', 'en', 'train[:5]', False)]
    assert [(row.number, row.values) for row in source] == list(enumerate(ROWS[:3], 1))
    assert source.head(1)[0].place == 'someone/alpaca, row 1'
    assert source.fingerprint() != RowSource(Source('someone/alpaca', limit=4)).fingerprint()


@pytest.mark.parametrize('streaming', [False, True])
def test_hub_rows_from_any_row_on(hub, streaming):
    source = RowSource(Source('someone/alpaca', limit=4), streaming)
    assert hub[0][-1] == streaming
    for start in range(6):
        assert [(row.number, row.values) for row in source.rows(start)] == list(enumerate(ROWS[:4], 1))[start:]
    assert [row.values for row in source] == [row.values for row in source] == ROWS[:4]


def test_hub_id_that_cannot_be_reached_says_what_to_do():
    with pytest.raises(DataError, match='(?s)`someone/nothing`.*train_dataset.path'):
        RowSource(Source('someone/nothing'))


@pytest.mark.parametrize('limit', [None, 1, 3, 4, 9])
def test_rows_of_several_files_from_any_row_on(files, limit):
    source = RowSource(Source(str(files), limit=limit))
    places = [f'{files / "a.csv"}, row {i}' for i in (2, 3, 4)] + [f'{files / "b.jsonl"}, row {i}' for i in (1, 2, 3)]
    wanted = list(zip(places, map(str, range(6)), strict=True))[:limit]
    for start in range(8):
        assert [(row.place, str(row.values['text'])) for row in source.rows(start)] == wanted[start:]
    assert len(source.head(2)) == min(2, len(wanted))


def test_a_source_without_rows_is_named(tmp_path):
    (tmp_path / 'a.csv').write_text('question,answer\n')
    with pytest.raises(DataError, match=r'a\.csv'):
        RowSource(Source(str(tmp_path / 'a.csv'))).head(1)


def test_sheet_of_a_file_that_has_none(tmp_path):
    (tmp_path / 'a.jsonl').write_text('{"text": "a"}')
    with pytest.raises(DataError, match="sheet='QA' .*\.xlsx"):
        RowSource(Source(str(tmp_path / 'a.jsonl'), sheet='QA'))
    with pytest.raises(DataError, match="sheet='QA' .*\.xlsx"):
        RowSource(Source(str(tmp_path), sheet='QA'))


def test_configuration_of_a_hub_data_set_is_no_option_of_files(tmp_path):
    (tmp_path / 'a.jsonl').write_text('{}\n')
    for path in (tmp_path / 'a.jsonl', tmp_path, 'self_cognition'):
        with pytest.raises(DataError, match="name='zh'"):
            RowSource(Source(str(path), name='zh'))


def test_fingerprint_is_of_the_content_and_identity_of_the_files(files):
    def both():
        source = RowSource(Source(str(files)))
        return source.fingerprint(), source.identity()

    first = both()
    assert both() == first
    text = (files / 'b.jsonl').read_text()
    (files / 'b.jsonl').write_text(text.replace('5', '55'))
    changed = both()
    assert changed[0] != first[0] and changed[1] != first[1]
    (files / 'b.jsonl').write_text(text)
    assert both()[0] == first[0]
    (files / 'b.jsonl').rename(files / 'c.jsonl')  # places in reports would be wrong
    assert both()[0] != first[0]
