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


def test_an_estimate_is_computed_again_after_a_change_of_config_or_model(tmp_path, count):
    (tmp_path / 'config.json').write_text('{}')
    assert [remembered({'r': r}, str(tmp_path), count) for r in (8, 8, 16, 8)] == ['1 GiB', '1 GiB', '2 GiB', '1 GiB']
    (tmp_path / 'config.json').write_text(json.dumps({'hidden_size': 8}))
    assert remembered({'r': 8}, str(tmp_path), count) == '3 GiB'


def test_an_estimate_of_a_hub_model_is_computed_again_for_a_new_commit(tmp_path, count, monkeypatch):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    refs = tmp_path / 'models--some--model' / 'refs'
    refs.mkdir(parents=True)
    found = [remembered({}, 'some/model', count)]
    (refs / 'main').write_text('abc')
    found += [remembered({}, 'some/model', count) for _ in range(2)]
    assert found == ['1 GiB', '2 GiB', '2 GiB'] and remembered({}, 'other/model', count) == '3 GiB'


def test_failed_estimates_are_not_cached(tmp_path, count, monkeypatch):
    def fails():
        raise ModelError('no model')

    for _ in range(2):
        with pytest.raises(ModelError):
            remembered({}, 'some/model', fails)
    assert remembered({}, 'some/model', count) == '1 GiB'
    (tmp_path / 'file').touch()
    monkeypatch.setenv('XTUNE_CACHE', str(tmp_path / 'file'))
    assert [remembered({}, 'some/model', count) for _ in range(2)] == ['2 GiB', '3 GiB']
