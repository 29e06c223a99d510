"""`list-cfg` counts what a config needs once."""

import json

import pytest

from xtune.commands.remembered import remembered
from xtune.errors import ModelError


@pytest.fixture
def count():
    """Return a function that counts its calls."""

    def counted():
        counted.calls += 1
        return f'{counted.calls} GiB'

    counted.calls = 0
    return counted


def test_it_is_counted_again_where_the_config_or_the_model_changes(tmp_path, count):
    (tmp_path / 'config.json').write_text('{}')
    assert [remembered({'r': r}, str(tmp_path), count) for r in (8, 8, 16, 8)] == ['1 GiB', '1 GiB', '2 GiB', '1 GiB']
    (tmp_path / 'config.json').write_text(json.dumps({'hidden_size': 8}))
    assert remembered({'r': 8}, str(tmp_path), count) == '3 GiB'


def test_a_model_of_the_hub_is_counted_again_once_its_commit_changes(tmp_path, count, monkeypatch):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    refs = tmp_path / 'models--some--model' / 'refs'
    refs.mkdir(parents=True)
    found = [remembered({}, 'some/model', count)]
    (refs / 'main').write_text('abc')
    found += [remembered({}, 'some/model', count) for _ in range(2)]
    assert found == ['1 GiB', '2 GiB', '2 GiB'] and remembered({}, 'other/model', count) == '3 GiB'


def test_what_cannot_be_counted_or_kept_is_not_remembered(tmp_path, count, monkeypatch):
    def fails():
        raise ModelError('no model')

    for _ in range(2):
        with pytest.raises(ModelError):
            remembered({}, 'some/model', fails)
    assert remembered({}, 'some/model', count) == '1 GiB'
    (tmp_path / 'file').touch()
    monkeypatch.setenv('XTUNE_CACHE', str(tmp_path / 'file'))
    assert [remembered({}, 'some/model', count) for _ in range(2)] == ['2 GiB', '3 GiB']
