"""`list-cfg` estimates the memory of a config once."""

import json

import pytest

from xtune.commands.estimate_cache import cached_estimate
from xtune.errors import ModelError


@pytest.fixture
def estimate():
    """Return a function that counts its calls."""

    def estimate():
        estimate.calls += 1
        return f'{estimate.calls} GiB'

    estimate.calls = 0
    return estimate


def test_estimate_is_repeated_after_a_change_of_config_or_model(tmp_path, estimate):
    (tmp_path / 'config.json').write_text('{}')
    assert [cached_estimate({'r': r}, str(tmp_path), estimate) for r in (8, 8, 16, 8)] == [
        '1 GiB',
        '1 GiB',
        '2 GiB',
        '1 GiB',
    ]
    (tmp_path / 'config.json').write_text(json.dumps({'hidden_size': 8}))
    assert cached_estimate({'r': 8}, str(tmp_path), estimate) == '3 GiB'


def test_estimate_is_repeated_after_a_new_commit_on_the_hub(tmp_path, estimate, monkeypatch):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    refs = tmp_path / 'models--some--model' / 'refs'
    refs.mkdir(parents=True)
    estimates = [cached_estimate({}, 'some/model', estimate)]
    (refs / 'main').write_text('abc')
    estimates += [cached_estimate({}, 'some/model', estimate) for _ in range(2)]
    assert estimates == ['1 GiB', '2 GiB', '2 GiB'] and cached_estimate({}, 'other/model', estimate) == '3 GiB'


def test_failed_estimates_are_not_cached(tmp_path, estimate, monkeypatch):
    def fails():
        raise ModelError('no model')

    for _ in range(2):
        with pytest.raises(ModelError):
            cached_estimate({}, 'some/model', fails)
    assert cached_estimate({}, 'some/model', estimate) == '1 GiB'
    (tmp_path / 'file').touch()
    monkeypatch.setenv('XTUNE_CACHE', str(tmp_path / 'file'))
    assert [cached_estimate({}, 'some/model', estimate) for _ in range(2)] == ['2 GiB', '3 GiB']
