"""Hub data sets come through the `datasets` library; here it hands out a data set made on the spot."""

import datasets
import pytest

from xtune.config.sections import Source
from xtune.data.sources import RowSource
from xtune.errors import DataError

ROWS = [{'instruction': f'question {i}', 'output': f'reply {i}'} for i in range(5)]


def test_hub_id_gives_its_rows_and_a_fingerprint_of_their_content(monkeypatch):
    asked = []

    def load_dataset(path, name, split, streaming):
        asked.append((path, name, split))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, 'load_dataset', load_dataset)
    source = RowSource(Source('someone/alpaca', name='en', split='train[:5]', limit=3))
    assert asked == [('someone/alpaca', 'en', 'train[:5]')]
    assert [(row.number, row.values) for row in source] == list(enumerate(ROWS[:3], 1))
    assert source.head(1)[0].place == 'someone/alpaca, row 1'
    assert source.fingerprint() != RowSource(Source('someone/alpaca', limit=4)).fingerprint()


def test_hub_id_that_cannot_be_reached_says_what_to_do():
    with pytest.raises(DataError, match='(?s)`someone/nothing` is no local file.*set train_dataset.path to the files'):
        RowSource(Source('someone/nothing'))


def test_sheet_of_a_file_that_has_none(tmp_path):
    (tmp_path / 'a.jsonl').write_text('{"text": "a"}')
    with pytest.raises(DataError, match="sheet='QA' is for .xlsx files"):
        RowSource(Source(str(tmp_path / 'a.jsonl'), sheet='QA'))
