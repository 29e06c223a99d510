"""Every private name of datasets that xtune uses is there and does what xtune relies on."""

from datasets import Dataset

from xtune.compat.datasets_private import fingerprint_of


def test_data_sets_are_distinguished_by_their_fingerprints():
    one, other = Dataset.from_dict({'a': [1]}), Dataset.from_dict({'a': [2]})
    assert isinstance(fingerprint_of(one), str) and fingerprint_of(one) != fingerprint_of(other)
