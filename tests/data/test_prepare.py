"""Preparing data: independent of the number of processes, cached by content, with a report of bad rows."""

import json
import pickle
import sys

import pytest

from xtune.config.sections import Source
from xtune.data.chat_tokenizer import ChatTokenizer
from xtune.data.encode import Encoder
from xtune.data.encode_rows import CHUNK
from xtune.data.prepare import prepare
from xtune.data.worker_pool import MIN_CHUNKS_FOR_POOL
from xtune.errors import DataError
from xtune.messages import RowError, exchange
from xtune.templates.resolve import resolve

GOOD = {'instruction': 'Hi', 'input': '', 'output': 'Hello!'}
EMPTY = {**GOOD, 'output': ''}


def counting_map_fn(row, log, reply='Hello!'):
    """Leave a line in the file `log` for each call."""
    with open(log, 'a') as file:
        file.write('call\n')
    return exchange(row['instruction'], reply)


def picky_map_fn(row):
    """Refuse some rows."""
    if row['output'] == 'bad':
        raise RowError('refused', row['instruction'])
    return exchange(row['instruction'], row['output'])


@pytest.fixture
def write(tmp_path):
    """Write rows to a jsonl file and return its path."""

    def write(rows, name='rows.jsonl'):
        path = tmp_path / name
        path.write_text(''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows), encoding='utf-8')
        return str(path)

    return write


@pytest.fixture
def run(tokenizer, write):
    """Prepare rows (or the source of a path) with chatml."""

    def run(
        rows,
        num_proc=1,
        bad=0.0,
        chat_template='chatml',
        max_length=128,
        overlong='truncate',
        train_on='all_replies',
        control_tokens='text',
        **source,
    ):
        chat_tokenizer = ChatTokenizer(tokenizer, resolve(chat_template, tokenizer), control_tokens)
        encoder = Encoder(chat_tokenizer, max_length, overlong, train_on)
        path = rows if isinstance(rows, str) else write(rows)
        return prepare(Source(path=path, **source), encoder, num_proc=num_proc, max_bad_rows=bad)

    return run


@pytest.fixture
def caches(tmp_path):
    """Return the folders in the cache."""
    return lambda: sorted((tmp_path / 'cache' / 'data').glob('*'))


def content(store):
    return [(store.ids(i).tolist(), store.spans(i).tolist(), store.place(i)) for i in range(len(store))]


def numbered(count):
    """Rows of different length; every 100th is bad, some are too long."""
    return [
        {'instruction': f'Number {i}?', 'output': 'bad' if i % 100 == 7 else f'It is {i}. ' + 'yes ' * (i * 31 % 150)}
        for i in range(count)
    ]


def test_the_result_does_not_depend_on_the_number_of_processes(run, monkeypatch, tmp_path):
    rows, results = numbered(MIN_CHUNKS_FOR_POOL * CHUNK + 600), []
    assert len(rows) >= 2500
    for num_proc in (1, 2):
        monkeypatch.setenv('XTUNE_CACHE', str(tmp_path / str(num_proc)))
        store, report = run(rows, num_proc, bad=0.02, map_fn=picky_map_fn)
        results.append((store.path.read_bytes(), store.origins, report))
    assert results[0] == results[1]
    assert (report.rows, report.bad['refused'], report.samples) == (2600, 26, 2574)
    assert report.length_changes['row truncated: response cut'] > 100
    assert report.tokens == store.lengths.sum() > report.trained_tokens > 0
    assert [where.split(', ')[1] for where, _ in report.examples] == [f'row {i}' for i in (8, 108, 208, 308, 408)]


def test_second_call_reads_the_cache(run, tmp_path, caches):
    log = tmp_path / 'log'
    first, report = run([GOOD] * 9, map_fn=counting_map_fn, map_args={'log': str(log)})
    calls, [folder] = len(log.read_text().splitlines()), caches()
    times = [path.stat().st_mtime_ns for path in sorted(folder.iterdir())]
    second, again = run([GOOD] * 9, map_fn=counting_map_fn, map_args={'log': str(log)})
    # Each row, some again to see what is read, and one at each start to see that the function fits the columns.
    assert calls >= 9 + 1 and len(log.read_text().splitlines()) == calls + 1
    assert [path.stat().st_mtime_ns for path in sorted(folder.iterdir())] == times and caches() == [folder]
    assert content(first) == content(second) and report == again


@pytest.mark.parametrize(
    'change',
    [
        {'rows': [GOOD, GOOD, {**GOOD, 'output': 'Hello?'}]},
        {'max_length': 127},
        {'overlong': 'drop'},
        {'train_on': 'last_reply'},
        {'control_tokens': 'parse'},
        {'system': 'Be brief.'},
        {'chat_template': 'auto'},
        {'limit': 2},
        {'map_fn': picky_map_fn, 'map_args': None},
        {'map_args': {'question': 'output', 'answer': 'output'}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_everything_that_changes_the_samples_changes_the_cache_key(run, caches, change):
    options = {'rows': [GOOD] * 3, 'map_fn': 'medqa', 'map_args': {'question': 'instruction', 'answer': 'output'}}
    run(**options)
    run(**(options | change))
    assert len(caches()) == 2


def test_an_edit_in_a_module_that_the_map_function_imports_changes_the_cache_key(run, caches, tmp_path, monkeypatch):
    (tmp_path / 'my_map.py').write_text(
        'from xtune.messages import exchange\n\ndef my_map(row):\n    import my_words\n\n'
        "    return exchange(row['instruction'], my_words.REPLY)\n"
    )
    (tmp_path / 'my_words.py').write_text("REPLY = 'one'\n")
    monkeypatch.syspath_prepend(tmp_path)
    first, _ = run([GOOD] * 3, map_fn='my_map.my_map')
    run([GOOD] * 3, map_fn='my_map.my_map')
    assert len(caches()) == 1
    (tmp_path / 'my_words.py').write_text("REPLY = 'another one'\n")
    monkeypatch.delitem(sys.modules, 'my_words')  # as in another run
    second, _ = run([GOOD] * 3, map_fn='my_map.my_map')
    assert len(caches()) == 2 and len(second.ids(0)) > len(first.ids(0))


def test_number_of_processes_and_threshold_do_not_change_the_cache_key(run, caches):
    run([GOOD] * 3, num_proc=1, bad=0.0)
    run([GOOD] * 3, num_proc=2, bad=0.5)
    assert len(caches()) == 1


def test_bad_rows_are_counted_by_reason_and_the_first_are_shown_with_their_place(run):
    odd = {'instruction': 'x', 'output': ['y']}
    store, report = run([GOOD, EMPTY, GOOD, odd, *[EMPTY] * 6], bad=0.9)
    assert len(store) == 2 and report.bad == {'empty reply': 7, 'column `output` is not text': 1}
    lines = report.lines()
    assert lines[:2] == ['7 rows skipped: empty reply', '1 row skipped: column `output` is not text']
    assert lines[2].endswith('rows.jsonl, row 2: empty reply')
    assert lines[3].endswith('rows.jsonl, row 4: column `output` is not text: it holds a list')
    assert len(report.examples) == 5


def test_too_many_bad_rows_are_an_error_also_from_the_cache(run, caches):
    rows, message = (
        [GOOD] * 9 + [EMPTY],
        r'(?s)1 of the 10 rows of .*\(10.0%, allowed: data.max_bad_rows=5.0%\).*row 10',
    )
    with pytest.raises(DataError, match=message):
        run(rows, bad=0.05)
    assert caches() == []
    assert run(rows, bad=0.1)[1].bad_rows == 1
    with pytest.raises(DataError, match=message):
        run(rows, bad=0.05)


@pytest.mark.parametrize(
    'rows, options, message',
    [
        ([EMPTY] * 3, {'bad': 1.0}, '(?s) 3 rows of .*3 rows skipped'),
        ([GOOD] * 3, {'max_length': 9, 'overlong': 'error'}, r'rows\.jsonl, row 1: .*\d+ tokens'),
        ([GOOD] * 2000 + [{}, 'x'], {'num_proc': 2}, r'rows\.jsonl, line 2002: '),
        ([], {}, r'rows\.jsonl is empty'),
    ],
)
def test_an_error_leaves_no_partial_cache(run, caches, rows, options, message):
    with pytest.raises(DataError, match=message):
        run(rows, **options)
    assert caches() == []


@pytest.mark.parametrize(
    'odd', [{'history': ['a']}, {'history': 7}, {'output': 'half an emoji \ud83d'}, {'instruction': '\ud83d'}], ids=repr
)
def test_odd_rows_after_the_first_are_bad_rows(run, tmp_path, odd):
    (tmp_path / 'odd.json').write_text(json.dumps([GOOD, {**GOOD, **odd}]))
    store, report = run(str(tmp_path / 'odd.json'), bad=0.9)
    assert len(store) == 1 and report.bad_rows == 1


def test_rows_of_several_files_have_the_right_place(run, write, tmp_path):
    (tmp_path / 'many').mkdir()
    for name in ('b', 'a'):
        write([GOOD] * 2, f'many/{name}.jsonl')
    store, _ = run(str(tmp_path / 'many'))
    assert [store.place(i).split('/')[-1] for i in range(4)] == [f'{n}.jsonl, row {i}' for n in 'ab' for i in (1, 2)]


def test_a_store_can_be_pickled(run):
    store, _ = run([GOOD, {**GOOD, 'history': [['a', 'b']]}])
    data = pickle.dumps(store)
    assert len(data) < 1000  # the path, not the tokens
    assert content(pickle.loads(data)) == content(store)
