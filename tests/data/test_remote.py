"""Remote data sets: what is retried, what is not, and that no row is lost or repeated when a connection breaks."""

import json
import os
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

import datasets
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import get_session, hf_raise_for_status

from xtune.config.sections import Source
from xtune.data import remote
from xtune.data.remote import is_transient, load_hub, load_modelscope, rows_with_retries, with_retries
from xtune.data.sources import RowSource
from xtune.errors import DataError

ROWS = [{'text': f'row {i}'} for i in range(7)]
CLOSED = 'http://127.0.0.1:9'  # the discard port: nothing listens there
# Prints what a hub id gives without a connection, and the seconds a user would have waited: the clock runs only while
# something sleeps.
UNREACHABLE = """
import time
clock = [0.0]
time.sleep = lambda seconds: clock.__setitem__(0, clock[0] + seconds)
time.monotonic = lambda: clock[0]
from xtune.config.sections import Source
from xtune.data.sources import RowSource
from xtune.errors import DataError
try:
    RowSource(Source('someone/nothing'))
except DataError as error:
    print(error)
print(clock[0])
"""


class Answers(BaseHTTPRequestHandler):
    """Answers /503 with status 503, and so on; /cut promises more than it sends."""

    def do_GET(self):
        self.send_response(200 if self.path == '/cut' else int(self.path[1:]))
        self.send_header('Content-Length', '100' if self.path == '/cut' else '0')
        self.end_headers()
        self.wfile.write(b'half' if self.path == '/cut' else b'')

    def log_message(self, *_):
        pass


@pytest.fixture(scope='module')
def server():
    """The address of a server on this machine."""
    made = HTTPServer(('127.0.0.1', 0), Answers)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{made.server_port}'
    made.shutdown()
    made.server_close()


@pytest.fixture
def no_waits(monkeypatch):
    """Three further attempts, at once."""
    monkeypatch.setattr(remote, 'WAITS', (0.0, 0.0, 0.0))


class FailingCall:
    """Raises `errors` one after the other, then returns the number of calls."""

    def __init__(self, *errors):
        self.errors, self.calls = list(errors), 0

    def __call__(self, *_):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.calls


class UnreliableRows:
    """An iterable data set whose connection breaks before the rows `breaks`, each of them once."""

    def __init__(self, rows, *breaks, error=None):
        self.rows, self.breaks, self.opened = rows, list(breaks), []
        self.error = error or ConnectionResetError('reset by peer')

    def skip(self, count):
        return self._from(count)

    def __iter__(self):
        return self._from(0)

    def _from(self, start):
        self.opened.append(start)
        for number in range(start, len(self.rows)):
            if number in self.breaks:
                self.breaks.remove(number)
                raise self.error
            yield self.rows[number]


def get(url):
    """Read `url` with the client that hub libraries use, here not put offline."""
    response = type(get_session())().get(url)
    hf_raise_for_status(response)


def caught(call, *arguments):
    with pytest.raises(Exception) as info:
        call(*arguments)
    return info.value


def wrapped(error, cause):
    """Return `error` as raised while `cause` is handled."""
    error.__context__ = cause
    return error


def like_requests(name):
    """An error as the library requests defines it: an OSError whose name alone tells what it is."""
    return type('Mine', (type(name, (OSError,), {}),), {})('no route')


def test_a_refused_connection_a_cut_answer_and_a_busy_server_are_transient(server):
    for call in (get, urllib.request.urlopen):
        assert is_transient(caught(call, CLOSED))
    assert is_transient(caught(get, f'{server}/cut'))
    for status, transient in ((404, False), (401, False), (403, False), (429, True), (500, True), (503, True)):
        error = caught(get, f'{server}/{status}')
        assert error.response.status_code == status and is_transient(error) == transient
        assert is_transient(wrapped(DataError('cannot be loaded'), error)) == transient


def test_the_cause_of_an_error_decides():
    refused = ConnectionRefusedError()
    assert not is_transient(wrapped(FileNotFoundError('not cached'), RuntimeError()))
    assert is_transient(wrapped(FileNotFoundError('not cached'), wrapped(RuntimeError(), refused)))
    assert is_transient(TimeoutError()) and is_transient(like_requests('ConnectionError'))
    assert is_transient(like_requests('Timeout')) and is_transient(like_requests('ChunkedEncodingError'))
    for error in (None, ValueError('x'), FileNotFoundError(), KeyError('x'), OfflineModeIsEnabled('offline')):
        assert not is_transient(error)


def test_transient_errors_are_retried_and_others_not(no_waits, capsys):
    flaky = FailingCall(ConnectionResetError('reset\nby peer'), TimeoutError())
    assert with_retries(flaky, 'someone/set') == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == 'note: someone/set: reset; retrying in 0 s' and 'TimeoutError' in lines[1]
    for error, attempts in ((ConnectionResetError('reset'), 4), (ValueError('no such split'), 1)):
        flaky = FailingCall(*[error] * 9)
        assert caught(with_retries, flaky, 'x') is error and flaky.calls == attempts
    once = FailingCall(ConnectionResetError('reset'))
    assert caught(with_retries, once, 'x', ()) and once.calls == 1
    assert with_retries(FailingCall(ConnectionResetError('reset')), 'x', (0.01,)) == 2
    assert caught(with_retries, FailingCall(*[ConnectionResetError('reset')] * 3), 'x', (0.01,))


def test_no_retry_starts_after_the_limit(monkeypatch):
    monkeypatch.setattr(remote, 'RETRY_LIMIT', -1.0)
    flaky = FailingCall(ConnectionResetError('reset'))
    assert caught(with_retries, flaky, 'x', (0.0, 0.0)) and flaky.calls == 1


@pytest.mark.parametrize('start', [0, 2])
def test_every_row_is_read_once_when_the_connection_breaks(no_waits, capsys, start):
    rows = UnreliableRows(ROWS, 3, 5)
    assert list(rows_with_retries(rows, start, 'someone/set')) == ROWS[start:]
    assert rows.opened == [start, 3, 5]
    assert 'note: someone/set, row 4: reset by peer; retrying in 0 s' in capsys.readouterr().out


def test_a_connection_that_breaks_before_the_first_row(no_waits):
    rows = UnreliableRows(ROWS, 0, 0, 0)
    assert list(rows_with_retries(rows, 0, 'someone/set')) == ROWS and rows.opened == [0] * 4


def test_the_number_of_failures_is_reset_after_each_row(no_waits):
    rows = UnreliableRows(ROWS, *[2] * 3, *[3] * 3, *[6] * 3)
    assert list(rows_with_retries(rows, 0, 'someone/set')) == ROWS


def test_a_connection_that_stays_broken_is_an_error_that_names_the_row(no_waits):
    rows, got = UnreliableRows(ROWS, *[4] * 9), []
    with pytest.raises(DataError, match='^someone/set: .* row 4: reset by peer$'):
        got.extend(iter(rows_with_retries(rows, 0, 'someone/set')))
    assert rows.opened == [0, 4, 4, 4]


def test_a_row_that_cannot_be_read_is_an_error_that_names_it(no_waits):
    rows = UnreliableRows(ROWS, 4, error=TypeError('Could not convert "x"\nwith type str'))
    with pytest.raises(DataError, match='^someone/set, row 5 .*: Could not convert "x"$'):
        list(rows_with_retries(rows, 0, 'someone/set'))
    assert rows.opened == [0]


@pytest.mark.integration
def test_hub_without_a_connection_ends_within_a_minute_and_says_what_to_do(tmp_path):
    cleared = {k: v for k, v in os.environ.items() if not k.endswith('_OFFLINE')}
    environment = {**cleared, 'HF_ENDPOINT': CLOSED, 'HF_HOME': str(tmp_path)}
    command = [sys.executable, '-c', UNREACHABLE]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout
    *message, waited = out.splitlines()
    assert message[0].startswith("note: someone/nothing: Couldn't reach 'someone/nothing' on the Hub")
    assert message[-2].startswith('`someone/nothing` ') and 'train_dataset.path' in message[-1]
    assert 1 <= float(waited) < 60


def test_errors_of_the_datasets_library_are_errors_for_the_user(monkeypatch, no_waits):
    for error in (datasets.exceptions.DatasetGenerationError('broken json'), ValueError('Unknown split "x"')):
        monkeypatch.setattr(datasets, 'load_dataset', lambda *_, error=error, **__: FailingCall(error)())
        with pytest.raises(DataError, match='(?s)`someone/set`.*(broken json|Unknown split)'):
            load_hub(Source('someone/set'))


def test_offline_mode_is_not_retried(monkeypatch):
    """The suite runs offline; a wait of an hour would show."""
    monkeypatch.setattr(remote, 'WAITS', (3600.0,))
    with pytest.raises(DataError, match='someone/nothing'):
        load_hub(Source('someone/nothing'))


@pytest.fixture
def modelscope(tmp_path, monkeypatch):
    """Return a function that writes a package `modelscope` with the given body of its download function."""
    monkeypatch.syspath_prepend(str(tmp_path / 'packages'))
    monkeypatch.delitem(sys.modules, 'modelscope', raising=False)

    def make(body):
        (tmp_path / 'packages' / 'modelscope').mkdir(parents=True)
        text = f'def dataset_snapshot_download(name):\n    {body}\n'
        (tmp_path / 'packages' / 'modelscope' / '__init__.py').write_text(text)

    yield make
    sys.modules.pop('modelscope', None)


def test_modelscope_data_set_is_downloaded_and_read_by_split(modelscope, tmp_path):
    modelscope(f'return {str(tmp_path)!r} + "/" + name')
    folder = tmp_path / 'someone' / 'set'
    folder.mkdir(parents=True)
    for split in ('train', 'test'):
        (folder / f'{split}.jsonl').write_text(''.join(json.dumps(row | {'of': split}) + '\n' for row in ROWS))
    source = RowSource(Source('modelscope:someone/set', limit=3))
    assert [row.values for row in source] == [row | {'of': 'train'} for row in ROWS[:3]]
    assert source.head(1)[0].place == f'{folder / "train.jsonl"}, row 1'
    assert next(iter(RowSource(Source('modelscope:someone/set', split='test')))).values['of'] == 'test'
    with pytest.raises(DataError, match='`validation`.*: test, train'):
        RowSource(Source('modelscope:someone/set', split='validation'))


def test_modelscope_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'modelscope', None)
    with pytest.raises(DataError, match='^modelscope:someone/set .*: pip install modelscope'):
        RowSource(Source('modelscope:someone/set'))


def test_modelscope_error_is_an_error_for_the_user(modelscope):
    modelscope("raise type('NotExistError', (Exception,), {})(name + ' is not there')")
    with pytest.raises(DataError, match='^modelscope:someone/set .*: someone/set is not there$'):
        load_modelscope('someone/set', 'train')


def test_modelscope_download_is_retried(modelscope, tmp_path, no_waits):
    (tmp_path / 'a.jsonl').write_text('{"text": "a"}')
    body = 'import modelscope as m; m.n = getattr(m, "n", 0) + 1\n'
    body += f'    if m.n < 3: raise ConnectionError("reset")\n    return {str(tmp_path)!r}'
    modelscope(body)
    assert load_modelscope('someone/set', 'train') == [tmp_path / 'a.jsonl']
