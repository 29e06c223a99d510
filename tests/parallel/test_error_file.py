"""The launcher never reads half of what a failing process writes."""

import json
import os

from xtune.parallel.error_file import VARIABLE, AtomicErrorHandler


def test_the_file_appears_only_when_complete(tmp_path, monkeypatch):
    path, seen = tmp_path / 'error.json', []

    class Text(Exception):
        def __str__(self):
            seen.append(path.exists())  # asked for while it is written
            return 'lost contact'

    monkeypatch.setenv(VARIABLE, str(path))
    AtomicErrorHandler().record_exception(Text())
    assert seen and not any(seen) and os.environ[VARIABLE] == str(path)
    assert json.loads(path.read_text())['message']['message'] == 'Text: lost contact'
    assert list(tmp_path.iterdir()) == [path]


def test_without_a_launcher_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    AtomicErrorHandler().record_exception(ValueError())
    assert not list(tmp_path.iterdir())
