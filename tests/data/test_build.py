"""Training and validation data from several sources: mixed, held out and reported."""

import csv
import json
from collections import Counter

import pytest
from training import build_data_of

from xtune.config.load import load
from xtune.config.presets import find
from xtune.config.wire import wire
from xtune.engine.new_token_report import new_token_warning
from xtune.engine.summary import data_lines
from xtune.errors import DataError

pytestmark = pytest.mark.integration


def swapped(row, first='q', second='a'):
    """Map a row of any two columns."""
    return [{'role': 'user', 'content': row[first]}, {'role': 'assistant', 'content': row[second]}]


@pytest.fixture
def files(tmp_path):
    """12 Alpaca rows (json), 6 chats (jsonl) and 3 rows of two odd columns (csv); all replies differ."""
    alpaca = [{'instruction': f'Say {i}.', 'input': '', 'output': f'json {i}!'} for i in range(12)]
    (tmp_path / 'a.json').write_text(json.dumps(alpaca))
    with open(tmp_path / 'b.jsonl', 'w') as file:
        for i in range(6):
            chat = [{'role': 'user', 'content': f'Tell {i}.'}, {'role': 'assistant', 'content': f'jsonl {i}!'}]
            file.write(json.dumps({'messages': chat}) + '\n')
    with open(tmp_path / 'c.csv', 'w', newline='') as file:
        csv.writer(file).writerows([['q', 'a'], *([f'Name {i}.', f'csv {i}!'] for i in range(3))])
    return tmp_path


@pytest.fixture
def build(files, model_dir):
    """Return a function that builds the data of sources (dicts whose path is a file's name) and options."""

    def build(*sources, **options):
        def placed(source):
            return source | {'path': str(files / source['path'])}

        small = {'base_model': str(model_dir), 'max_length': 64, 'data.num_proc': 1, 'pack': False}
        options = {key.replace('__', '.'): value for key, value in options.items()}
        val = options.get('val_dataset')
        if isinstance(val, dict):
            options['val_dataset'] = placed(val)
        elif isinstance(val, list):
            options['val_dataset'] = [placed(one) for one in val]
        data = [placed(source) for source in sources]
        job = wire(load(find('smollm2_135m_lora_selfcog_e2'), small | {'train_dataset': data} | options))
        return job, build_data_of(job)

    return build


A, B, C = {'path': 'a.json'}, {'path': 'b.jsonl', 'map_fn': 'openai'}, {'path': 'c.csv', 'map_fn': swapped}


def replies(data, split):
    """How often each reply is in a split: 'json 3' -> 1."""
    texts = [data.tokenizer.decode(split.store.ids(i)) for i in split.sequences.ranges[:, 0].tolist()]
    return Counter(text.split('<|im_start|>assistant\n')[1].split('!')[0] for text in texts)


def count_by_source(counted):
    found = Counter()
    for reply, count in counted.items():
        found[reply.split()[0]] += count
    return dict(found)


def all_replies(**counts):
    return {f'{name} {i}' for name, count in counts.items() for i in range(count)}


def lines(job, data, label):
    return [text for name, text in data_lines(job.data_spec, data, new_token_warning(job.model, data)) if name == label]


def test_three_formats_without_weights_are_used_once_each(build):
    job, data = build(A, B, C)
    assert replies(data, data.train) == dict.fromkeys(all_replies(json=12, jsonl=6, csv=3), 1)
    assert data.train.repeats == [1.0] * 3 and data.val is None
    assert [(r.format, r.rows, r.samples) for r in data.train.reports] == [
        ('alpaca', 12, 12),
        ('openai', 6, 6),
        ('swapped', 3, 3),
    ]
    shown = lines(job, data, 'data')
    assert len(shown) == 3 and all('times per epoch' not in line for line in shown)
    assert 'a.json as alpaca: 12 rows -> 12 samples' in shown[0] and 'c.csv as swapped: 3 rows' in shown[2]
    assert lines(job, data, 'training')[0].startswith('21 samples, ')


@pytest.mark.parametrize('pack', [False, 'fit', 'exact', 'stream'])
def test_weights_repeat_the_smaller_sets(build, pack):
    job, data = build(A | {'weight': 2}, B | {'weight': 1}, C | {'weight': 1}, pack=pack)
    assert data.train.samples == 24 and data.train.repeats == [1.0, 1.0, 2.0]
    if not pack:
        counted = replies(data, data.train)
        assert count_by_source(counted) == {'json': 12, 'jsonl': 6, 'csv': 6}
        assert {counted[f'csv {i}'] for i in range(3)} == {2}
    tokens = data.train.store.lengths
    assert data.train.tokens == tokens.sum() + tokens[-3:].sum()
    shown = lines(job, data, 'data')
    assert shown[2].endswith('used 2.00 times per epoch') and 'times' not in shown[0] + shown[1]
    assert lines(job, data, 'training')[0].startswith(f'24 samples, {data.train.tokens:,} tokens per epoch')


def test_each_source_has_options_of_its_own(build, files):
    (files / 'set').mkdir()
    for name, text in (('train', 'no'), ('test', 'yes')):
        row = {'question': 'Well?', 'answer': f'{text} 0!'}
        (files / 'set' / f'{name}.json').write_text(json.dumps([row]))
    other = C | {'map_args': {'first': 'a', 'second': 'q'}, 'limit': 2, 'system': 'Be odd.'}
    _, data = build(A | {'limit': 5}, other, {'path': 'set', 'split': 'test', 'map_fn': 'medqa'})
    texts = [data.tokenizer.decode(data.train.store.ids(i)) for i in range(len(data.train.store))]
    assert [report.rows for report in data.train.reports] == [5, 2, 1]
    assert 'Be odd.' in texts[5] and 'assistant\nName 0.<|im_end|>' in texts[5] and 'user\ncsv 0!' in texts[5]
    assert 'assistant\nyes 0!' in texts[7] and not any('Be odd.' in text for text in texts[:5] + texts[7:])


@pytest.mark.parametrize('amount', [0.25, 5])
@pytest.mark.parametrize('weights', [(None,) * 3, (1, 1, 1)])
@pytest.mark.parametrize('seed', [0, 1])
def test_held_out_rows_are_not_trained(build, amount, weights, seed):
    given = [source | {'weight': weight} for source, weight in zip((A, B, C), weights, strict=True)]
    job, data = build(*given, val_dataset=amount, seed=seed)
    trained, held = replies(data, data.train), replies(data, data.val)
    assert not set(trained) & set(held) and set(trained) | set(held) == all_replies(json=12, jsonl=6, csv=3)
    assert held.total() == 5 and set(held.values()) == {1}
    if weights[0]:
        left = count_by_source(trained)
        assert left['json'] == left['jsonl'] == left['csv'] == len([name for name in trained if 'json ' in name])
    assert lines(job, data, 'validation')[0].startswith('5 samples, ')


def test_all_samples_of_a_split_row_are_in_the_same_split(build, files):
    talk = [m for i in range(6) for m in swapped({'q': f'Part {i}?', 'a': 'word ' * 12})]
    for name in ('long', 'also_long'):
        rows = [{'messages': [{'role': 'system', 'content': f'Talk {name} {i}.'}, *talk]} for i in range(8)]
        (files / f'{name}.json').write_text(json.dumps(rows))
    _, data = build({'path': 'long.json'}, {'path': 'also_long.json'}, val_dataset=6, overlong='split')

    def talks(split):
        texts = [data.tokenizer.decode(split.store.ids(i)) for i in split.sequences.ranges[:, 0].tolist()]
        return Counter(text.split('Talk ')[1].split('.')[0] for text in texts)

    trained, held = talks(data.train), talks(data.val)
    assert (len(trained), len(held)) == (10, 6) and not set(trained) & set(held)
    assert set((trained + held).values()) == {6}


def test_validation_data_with_sources_of_their_own(build):
    job, data = build(A, val_dataset=[B, C])
    assert set(replies(data, data.train)) == all_replies(json=12)
    assert replies(data, data.val) == dict.fromkeys(all_replies(jsonl=6, csv=3), 1)
    assert lines(job, data, 'validation')[0].startswith('9 samples, ')
    _, data = build(A, B, val_dataset=C)
    assert set(replies(data, data.val)) == all_replies(csv=3)


def test_holding_out_all_rows_is_an_error(build, files):
    (files / 'one.csv').write_text('q,a\nHm?,one 0!\n')
    with pytest.raises(DataError, match='val_dataset=12 .*one.csv'):
        for seed in range(20):
            build(A | {'weight': 1}, C | {'path': 'one.csv', 'weight': 1}, val_dataset=12, seed=seed)
    with pytest.raises(DataError, match='would hold out 21 of 21 rows'):
        build(A, B, C, val_dataset=21)


def test_each_source_has_its_own_cache(build, files, tmp_path):
    def caches():
        return {path.name: (path / 'samples.arrow').stat().st_mtime_ns for path in (tmp_path / 'cache/data').iterdir()}

    build(A, B)
    first = caches()
    build(B | {'weight': 1}, A | {'weight': 3}, schedule__batch_size=2, pack='exact', seed=7)
    assert caches() == first and len(first) == 2  # order, weights and packing tokenize nothing anew
    build(A | {'limit': 3}, B)
    second = caches()
    assert len(second) == 3 and first.items() <= second.items()
    with open(files / 'b.jsonl', 'a') as file:
        file.write(json.dumps({'messages': swapped({'q': 'More?', 'a': 'jsonl 6!'})}) + '\n')
    _, data = build(A, B)
    assert len(caches()) == 4 and second.items() <= caches().items()
    assert 'jsonl 6' in replies(data, data.train)


def test_unusable_rows_are_counted_by_source(build, files):
    rows = json.loads((files / 'a.json').read_text())
    (files / 'a.json').write_text(json.dumps([*rows, {**rows[0], 'output': ''}]))
    job, data = build(B, A, data__max_bad_rows=0.1)
    assert [report.bad_rows for report in data.train.reports] == [0, 1]
    shown = list(data_lines(job.data_spec, data, new_token_warning(job.model, data)))
    place = next(i for i, (_, text) in enumerate(shown) if 'a.json as alpaca' in text)
    assert '1 row skipped' in shown[place][1] and shown[place + 1] == ('', '1 row skipped: empty reply')
    with pytest.raises(DataError, match=r'1 of the 13 rows of .*a.json cannot be used'):
        build(B, A, data__max_bad_rows=0.05)


def test_order_and_mixture_depend_on_the_seed(build):
    def identity(seed):
        _, data = build(A | {'weight': 1}, C | {'weight': 1}, seed=seed, pack='fit')
        return data.steps.identity()

    assert identity(1) == identity(1) != identity(2)


def test_longest_first_and_pack_reach_the_schedule(build):
    _, data = build(A, B, data__longest_first=True, schedule__batch_size=3, schedule__accumulate=1)
    lengths = data.train.sequences.lengths
    first = [len(ranges) for ranges in data.steps.schedule.step(0)[0]]
    tokens = [int(ranges[:, 2].sum()) for ranges in data.steps.schedule.step(0)[0]]
    assert first == [1] * 3 and sorted(tokens) == sorted(lengths)[-3:]
    _, stream = build(A, B, pack='stream')
    assert stream.train.sequences.concatenated and stream.steps[0][0].position_ids is None
    assert set(stream.train.sequences.lengths[:-1]) == {64}
