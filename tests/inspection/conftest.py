"""Fixtures of the inspection tests."""

import json

import pytest


@pytest.fixture
def write(tmp_path):
    """Return a function that writes rows and returns the option that names them."""

    def written(rows, name='rows.json'):
        (tmp_path / name).write_text(json.dumps(rows), encoding='utf-8')
        return {'train_dataset.path': str(tmp_path / name)}

    return written
