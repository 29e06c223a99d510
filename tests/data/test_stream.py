"""Streaming: every row of a pass is used once, resuming is bit-exact, and only one window is in memory."""

import gc
import io
import itertools
import json
import weakref
from collections import Counter

import numpy as np
import pytest
import torch
from training import build_data_of

from xtune.config.load import load
from xtune.config.presets import find
from xtune.config.sections import Source
from xtune.config.wire import wire
from xtune.data.build_stream import build_stream
from xtune.data.chat_tokenizer import ChatTokenizer
from xtune.data.cursor import Cursor
from xtune.data.encode import Encoder
from xtune.data.encoder_factory import EncoderFactory
from xtune.data.memory_store import MemoryStore
from xtune.data.rank_shard import RankShard
from xtune.data.resolve_map_fn import resolve_row_mapper
from xtune.data.sources import Row, RowSource
from xtune.data.step_loader import step_loader
from xtune.data.steps import StreamedSteps
from xtune.data.stream import RowStream, StreamSettings
from xtune.engine.new_token_report import new_token_warning
from xtune.engine.summary import data_lines
from xtune.errors import ConfigError, DataError
from xtune.templates.resolve import resolve

pytestmark = pytest.mark.integration

MODES = ['none', 'fit', 'exact', 'stream']


class Generated:
    """A source of `count` rows that are generated on demand. It counts the rows generated and those not yet freed."""

    def __init__(self, count, path='generated'):
        self.source, self.count, self.generated, self.alive, self.max_alive = Source(path), count, 0, 0, 0
        self.unread, self.hints = [], []

    def rows(self, start=0):
        for i in range(start, self.count):
            row = Row(self.source.path, i + 1, {'instruction': f'Count {i}', 'output': 'one ' * (1 + i * 7 % 20)})
            weakref.finalize(row, self._on_freed)
            self.generated, self.alive = self.generated + 1, self.alive + 1
            self.max_alive = max(self.max_alive, self.alive)
            self.before_row()
            yield row
            del row

    def before_row(self):
        """Called before each row is yielded."""

    def _on_freed(self):
        self.alive -= 1


class WindowCounter(Generated):
    """Records how many of its windows are in memory whenever it starts a new window of 200 rows."""

    def __init__(self, count, path):
        super().__init__(count, path)
        self.windows = []

    def before_row(self):
        if self.generated % 200 == 1:
            stores = [thing for thing in gc.get_objects() if type(thing) is MemoryStore]
            self.windows.append(sum(store.place(0).startswith(self.source.path) for store in stores))


def settings(**options):
    defaults = dict(
        weights=None, window=7, sequences_per_step=4, packing='fit', max_length=48, seed=0, max_bad_rows=0.0
    )
    return StreamSettings(**{**defaults, **options})


@pytest.fixture
def encoder(tokenizer):
    """Samples of at most 48 tokens."""
    return Encoder(ChatTokenizer(tokenizer, resolve('chatml', tokenizer)), 48, 'truncate')


@pytest.fixture
def stream(encoder):
    """Return a function that makes a stream of generated sources with these numbers of rows."""

    def make(*counts, **options):
        sources = [Generated(count, f'set {i}') for i, count in enumerate(counts)]
        mapper = resolve_row_mapper(Source('generated'), list(itertools.islice(sources[0].rows(), 1)))
        pairs = [(source, mapper) for source in sources]
        return RowStream(pairs, [encoder] * len(sources), settings(**options))

    return make


def begin(stream):
    return Cursor(0, [0] * len(stream.sources))


def windows(stream, count):
    return list(itertools.islice(stream.windows(begin(stream)), count))


def tokens(store, sequences):
    """How often each (row, token) is in `sequences`."""
    seen = Counter()
    for ranges in sequences:
        for sample, first, stop in ranges.tolist():
            seen.update((store.place(sample), at) for at in range(first, stop))
    return seen


def remainder_of(window):
    """How often each (row, token) is in the remainder that starts the next window."""
    seen = Counter()
    for ranges in window.next.sequences:
        for sample, first, stop in ranges:
            seen.update((window.next.samples[sample][2], at) for at in range(first, stop))
    return seen


def in_steps(stream, window):
    return [window.sequences[i] for i in range(window.steps * stream.sequences_per_step)]


def places(counts, total):
    """The first `total` rows of sources read one after the other, again and again."""
    rows = [f'set {i}, row {row + 1}' for i, count in enumerate(counts) for row in range(count)]
    return Counter(itertools.islice(itertools.cycle(rows), total))


def plain(step):
    tensors = [[t if t is None else t.tolist() for t in (b.input_ids, b.position_ids, b.targets)] for b in step]
    return tensors, [batch.places for batch in step]


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize(('counts', 'window'), [((30,), 7), ((30,), 30), ((5, 1, 9), 4), ((3,), 8), ((12, 8), 1)])
def test_every_row_is_used_exactly_as_often_as_it_is_read(stream, mode, counts, window):
    made = stream(*counts, packing=mode, window=window)
    seen, lengths = Counter(), {}
    for number, one in enumerate(itertools.islice(made.windows(begin(made)), 12), 1):
        seen += tokens(one.store, in_steps(made, one))
        lengths |= {place: len(one.store.ids(i)) for i, place in enumerate(one.store.places)}
        read = places(counts, number * window)
        wanted = Counter({(place, at): times for place, times in read.items() for at in range(lengths[place])})
        assert seen + remainder_of(one) == wanted
    assert made.sources[0][0].generated >= counts[0]


@pytest.mark.parametrize('mode', MODES)
def test_the_remainder_of_a_window_starts_the_next(stream, mode):
    made = stream(100, packing=mode, sequences_per_step=5)
    for one, two in itertools.pairwise(windows(made, 8)):
        count = len(one.sequences) - one.steps * 5
        assert 0 <= count < 5 and len(one.next.sequences) == count
        opening = [two.sequences[i] for i in range(count)]
        assert tokens(two.store, opening) == remainder_of(one)
        assert two.begin == one.next and two.begin.number == one.begin.number + 1


def test_windows_smaller_than_a_step_are_combined(stream):
    made = stream(100, packing='none', window=3, sequences_per_step=8)
    assert [one.steps for one in windows(made, 9)] == [0, 0, 1, 0, 0, 1, 0, 1, 0]


def test_windows_are_shuffled_and_the_seed_decides(stream):
    def order(seed):
        made = stream(40, packing='none', seed=seed, sequences_per_step=1, window=20)
        return [window.store.places[i] for window in windows(made, 4) for i in window.sequences.ranges[:, 0]]

    assert order(1) == order(1) != order(2)
    one = order(1)
    assert sorted(one[:20]) == sorted(one[40:60]) and one[:20] != one[40:60] and one[:20] != sorted(one[:20])


def test_weights_are_probabilities_and_each_source_is_read_in_order(stream):
    made = stream(1000, 40, 1000, packing='none', window=400, sequences_per_step=1, weights=[6, 3, 1])
    found = windows(made, 4)
    read = [place for one in found for place in one.store.places]
    counts = Counter(place.split(',')[0] for place in read)
    for number, share in enumerate((0.6, 0.3, 0.1)):
        assert counts[f'set {number}'] == pytest.approx(1600 * share, abs=4 * (1600 * share * (1 - share)) ** 0.5)
    rows = [int(place.split()[-1]) for place in read if place.startswith('set 1')]
    assert rows == [1 + i % 40 for i in range(len(rows))] and len(rows) > 400  # it was restarted many times
    assert found[-1].next.rows == [counts['set 0'], len(rows) % 40 or 40, counts['set 2']]
    again = stream(1000, 40, 1000, packing='none', window=400, sequences_per_step=1, weights=[60, 30, 10])
    assert [place for one in windows(again, 4) for place in one.store.places] == read


@pytest.mark.parametrize('weights', [None, [2, 1]])
def test_reports_count_the_rows_of_each_source(stream, weights):
    for one in windows(stream(20, 5, window=10, weights=weights), 5):
        found = Counter(place.split(',')[0] for place in one.store.places[len(one.begin.samples) :])
        assert [report.rows for report in one.reports] == [found['set 0'], found['set 1']]
        assert [report.format for report in one.reports] == ['alpaca'] * 2
        assert sum(report.tokens for report in one.reports) == one.store.lengths[len(one.begin.samples) :].sum()


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize(
    ('counts', 'weights', 'window'), [((30,), None, 7), ((9, 4), None, 5), ((9, 40), [1, 2], 12), ((30,), None, 2)]
)
def test_resumed_from_any_cursor_the_next_steps_are_the_same(stream, mode, counts, weights, window):
    def steps(cursor=None):
        rows = stream(*counts, packing=mode, weights=weights, window=window)
        dataset = StreamedSteps(rows, steps=24, batch_size=2, pad_id=0, identity='hash')
        dataset.seek(cursor)
        return dataset

    uninterrupted = steps()
    made = [uninterrupted[i] for i in range(24)]
    for done in range(1, 23):
        file = io.BytesIO()
        torch.save(made[done - 1].cursor.to_dict(), file)
        file.seek(0)
        cursor = Cursor(**torch.load(file, weights_only=True))
        assert cursor.to_dict() == made[done - 1].cursor.to_dict()
        resumed = steps(cursor)
        for at in range(done, min(done + 3, 24)):
            step = resumed[at]
            assert plain(step) == plain(made[at]) and step.cursor == made[at].cursor
    uninterrupted.seek(made[4].cursor)  # the same stream, moved back
    assert plain(uninterrupted[5]) == plain(made[5])
    uninterrupted.seek(None)
    assert plain(uninterrupted[0]) == plain(made[0])


@pytest.mark.parametrize('workers', [0, 1, 3])
def test_a_worker_process_changes_nothing(stream, workers):
    def steps():
        return StreamedSteps(stream(30, 8), steps=8, batch_size=2, pad_id=0, identity='hash')

    alone = steps()
    loader = step_loader(steps(), workers)
    assert loader.num_workers == min(workers, 1) and len(loader) == 8
    made = list(loader)
    for index, step in enumerate(made):
        again = alone[index]
        assert plain(step) == plain(again) and step.cursor == again.cursor
        assert len(step) == 2 and all(len(batch.input_ids) == 2 for batch in step)
    loader.batch_sampler.start = 5
    loader.dataset.seek(made[4].cursor)
    assert [plain(step) for step in loader] == [plain(step) for step in made[5:]]


@pytest.mark.parametrize('mode', ['fit', 'stream'])
def test_only_one_window_of_a_large_source_is_in_memory(encoder, mode):
    source = WindowCounter(200_000, f'generated {mode}')
    mapper = resolve_row_mapper(Source('generated'), [next(source.rows())])
    rows = RowStream([(source, mapper)], [encoder], settings(window=200, packing=mode))
    steps = StreamedSteps(rows, steps=10_000, batch_size=2, pad_id=0, identity='hash')
    source.generated = 0
    for index in range(150):
        steps[index]
    assert source.generated % 200 == 0 and 3 <= source.generated / 200 < 20  # read no further than needed
    assert source.windows[1:] == [0] * (len(source.windows) - 1)  # a window is freed before the next one is made
    assert source.max_alive <= 201 and source.alive <= 1


def test_a_window_with_too_many_unusable_rows_stops_the_run(encoder, tmp_path):
    good = [{'instruction': f'Count {i}', 'output': 'one'} for i in range(30)]
    rows = [row | {'output': ''} if i in (3, 12, 13) else row for i, row in enumerate(good)]
    path = tmp_path / 'rows.jsonl'
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))

    def made(share):
        source = RowSource(Source(str(path)))
        pairs = [(source, resolve_row_mapper(source.source, source.head(1)))]
        return RowStream(pairs, [encoder], settings(window=10, sequences_per_step=2, max_bad_rows=share))

    reports = [one.reports[0] for one in windows(made(0.2), 6)]
    assert [report.bad_rows for report in reports] == [1, 2, 0, 1, 2, 0]
    assert reports[1].examples[0] == (f'{path}, row 13', 'empty reply')
    stream = made(0.1).windows(Cursor(0, [0]))
    assert next(stream).reports[0].bad_rows == 1
    message = r'(?s)2 of the 10 rows of .*rows.jsonl, window 2, cannot be used \(20.0%, allowed: .*row 13: empty reply'
    with pytest.raises(DataError, match=message):
        next(stream)


@pytest.fixture
def wired(tmp_path, model_dir):
    """Return a function that wires a streamed run on two files of 12 and 5 rows, with options."""
    for name, count in (('a', 12), ('b', 5)):
        rows = [{'instruction': f'Count {i}', 'output': 'one ' * (i + 1)} for i in range(count)]
        (tmp_path / f'{name}.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))

    def wired(*names, weights=(None, None), **options):
        data = [{'path': str(tmp_path / f'{n}.jsonl'), 'weight': w} for n, w in zip(names, weights, strict=False)]
        options = {key.replace('__', '.'): value for key, value in options.items()}
        small = {
            'base_model': str(model_dir),
            'max_length': 64,
            'schedule.max_steps': 6,
            'data.streaming': True,
            'data.window': 8,
            'schedule.batch_size': 2,
            'train_dataset': data,
        }
        return wire(load(find('smollm2_135m_lora_selfcog_e2'), small | options))

    return wired


@pytest.fixture
def first_and_steps(wired, tokenizer):
    """Return a function that streams the data of a run: the first window and the steps."""

    def make(*names, **options):
        job = wired(*names, **options)
        values = job.values
        chat_tokenizer = ChatTokenizer(tokenizer, resolve(values.chat_template, tokenizer), values.control_tokens)
        encoders = EncoderFactory(chat_tokenizer, values.max_length, values.overlong, values.train_on)
        return build_stream(job.data_spec, encoders, 0, RankShard())

    return make


def test_options_that_need_all_rows_are_refused(first_and_steps):
    build = first_and_steps
    with pytest.raises(ConfigError, match='schedule.max_steps'):
        build('a', schedule__max_steps=None)
    with pytest.raises(ConfigError, match='val_dataset=0.1'):
        build('a', val_dataset=0.1)
    with pytest.raises(ConfigError, match='data.longest_first=True'):
        build('a', data__longest_first=True)
    with pytest.raises(DataError, match='b.jsonl'):
        build('a', 'b', data__max_bad_rows=0.0, max_length=8, data__window=20)


@pytest.mark.parametrize('weights', [(None, None), (1, 3)])
def test_streamed_data_of_a_config(wired, tmp_path, weights):
    job = wired('a', 'b', weights=weights, val_dataset={'path': str(tmp_path / 'b.jsonl')})
    data = build_data_of(job)
    assert len(data.steps) == 6 == data.steps.steps_per_epoch and data.val.samples == 5
    assert [report.format for report in data.train.reports] == ['alpaca'] * 2
    rows = [report.rows for report in data.train.reports]
    assert sum(rows) == 8 and (weights[0] or rows == [8, 0]) and len(data.train.repeats) == 2
    shown = [
        text for label, text in data_lines(job.data_spec, data, new_token_warning(job.model, data)) if label == 'data'
    ]
    assert [line.split(' -> ')[0].split('/')[-1] for line in shown] == [
        f'{name}.jsonl as alpaca: {count} row{"" if count == 1 else "s"}'
        for name, count in zip('ab', rows, strict=True)
    ]
    assert len(list((tmp_path / 'cache' / 'data').iterdir())) == 1  # of the validation data
    assert all(len(step) == 1 and len(step[0].input_ids) == 2 for step in (data.steps[i] for i in range(6)))


def test_the_identity_changes_with_everything_the_steps_depend_on(first_and_steps, tmp_path):
    def identity(*names, **options):
        return first_and_steps(*names, **options)[1].identity()

    changes = [{'seed': 1}, {'data__window': 9}, {'pack': False}, {'max_length': 65}, {'weights': (1, 2)}]
    changes += [{'schedule__batch_size': 1}, {'train_on': 'last_reply'}]
    first = identity('a', 'b')
    assert identity('a', 'b', schedule__max_steps=9, data__num_workers=1) == first
    others = [identity('a', 'b', **change) for change in changes]
    assert len({first, *others}) == len(changes) + 1
    assert identity('b', 'a') != first
    with open(tmp_path / 'a.jsonl', 'a') as file:
        file.write('{"instruction": "x", "output": "y"}\n')
    assert identity('a', 'b') != first


def test_the_first_window_is_the_one_training_starts_with(first_and_steps):
    train, steps = first_and_steps('a', pack='exact')
    seen = tokens(train.store, [train.sequences[i] for i in range(len(train.sequences))])
    assert sum(seen.values()) == train.tokens == int(np.sum(train.store.lengths)) and train.samples == 8
    assert set(steps[0][0].places) <= set(train.store.places)
