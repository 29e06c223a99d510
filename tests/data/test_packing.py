"""Packing and schedule: every sample once, no sequence too long, determined by lengths, seed and epoch."""

import json
from collections import Counter
from itertools import chain

import numpy as np
import pytest

from xtune.config.sections import Source
from xtune.data.batch_schedule import BatchSchedule
from xtune.data.batches import IGNORE_INDEX
from xtune.data.chat_tokenizer import ChatTokenizer
from xtune.data.collate import collate
from xtune.data.encode import Encoder
from xtune.data.packing import pack, pack_fit
from xtune.data.prepare import prepare
from xtune.data.step_loader import step_loader
from xtune.data.steps import ScheduledSteps
from xtune.templates.resolve import resolve


def samples_of(step):
    """Sample indices of one optimizer step."""
    return [int(index) for micro_batch in step for ranges in micro_batch for index in ranges[:, 0]]


def plain(steps):
    """Steps as lists, to compare."""
    return [[[ranges.tolist() for ranges in micro_batch] for micro_batch in step] for step in steps]


def schedule_of(sequences, batch_size, accumulation, seed, longest_first=False):
    return BatchSchedule(
        sequences=sequences,
        batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        seed=seed,
        longest_first=longest_first,
    )


def epoch(schedule, number):
    """The steps of one epoch."""
    steps = schedule.steps_per_epoch
    return [schedule.step(i) for i in range(number * steps, (number + 1) * steps)]


def packed(lengths, max_length=512, seed=0, mode='fit'):
    return pack(mode, lengths, np.arange(len(lengths)), max_length, seed)


@pytest.fixture(scope='module')
def chat_lengths():
    """3000 lengths distributed as in chat data: many short, few long."""
    return np.clip(np.random.default_rng(7).lognormal(5, 0.8, 3000).astype(np.int64), 10, 2048)


@pytest.mark.parametrize('seed', range(50))
def test_each_sample_once_an_epoch_and_no_sequence_too_long(seed):
    rng = np.random.default_rng(seed)
    max_length = int(rng.integers(8, 300))
    lengths = rng.integers(1, max_length + 1, size=rng.integers(1, 400))
    sequences = packed(lengths, max_length, seed)
    assert sequences.lengths.max() <= max_length
    assert sequences.lengths.tolist() == [sum(lengths[i] for i, *_ in ranges) for ranges in sequences]
    assert sorted(sequences.ranges[:, 0]) == list(range(len(lengths)))
    assert len(sequences) <= 2 * lengths.sum() / max_length + 1  # no two of them fit into one
    schedule = schedule_of(sequences, int(rng.integers(1, 5)), int(rng.integers(1, 4)), seed)
    for number in (0, 1):
        assert sorted(chain.from_iterable(map(samples_of, epoch(schedule, number)))) == list(range(len(lengths)))


def test_only_the_given_samples_are_packed(chat_lengths):
    chosen = np.arange(0, 3000, 7)
    assert sorted(chain.from_iterable(pack_fit(chat_lengths, chosen, 2048, 0))) == chosen.tolist()


@pytest.mark.parametrize('max_length', [2048, 4096])
def test_sequences_are_filled_well(chat_lengths, max_length):
    sequences = packed(chat_lengths, max_length)
    assert chat_lengths.sum() / (len(sequences) * max_length) > 0.9


def test_the_order_depends_only_on_seed_and_epoch(chat_lengths):
    def schedule(seed, accumulation=2):
        return schedule_of(packed(chat_lengths, 2048, seed), 2, accumulation, seed)

    first = plain(epoch(schedule(1), 0))
    assert plain(epoch(schedule(1), 0)) == first
    assert plain(epoch(schedule(1), 1)) != first
    assert plain(epoch(schedule(2), 0)) != first
    order = list(chain.from_iterable(map(samples_of, epoch(schedule(1), 0))))
    assert list(chain.from_iterable(map(samples_of, epoch(schedule(1, accumulation=8), 0)))) == order
    assert packed(chat_lengths, seed=1).ranges.tolist() != packed(chat_lengths, seed=2).ranges.tolist()


def test_steps_have_random_access(chat_lengths):
    schedule = schedule_of(packed(chat_lengths, 2048), 4, 2, 0)
    steps = {i: plain([schedule.step(i)]) for i in range(2 * schedule.steps_per_epoch)}
    assert all(plain([schedule.step(i)]) == steps[i] for i in reversed(steps))


@pytest.mark.parametrize(
    'count, batch_size, accumulation, steps, last',
    [(24, 2, 3, 4, [2, 2, 2]), (25, 2, 3, 5, [1]), (27, 2, 3, 5, [2, 1]), (3, 4, 2, 1, [3]), (1, 1, 1, 1, [1])],
)
def test_steps_per_epoch_and_the_partial_last_step(count, batch_size, accumulation, steps, last):
    schedule = schedule_of(packed(np.ones(count, np.int64), mode='none'), batch_size, accumulation, seed=0)
    assert schedule.steps_per_epoch == steps
    sizes = [[len(micro_batch) for micro_batch in step] for step in epoch(schedule, 0)]
    assert sizes[:-1] == [[batch_size] * accumulation] * (steps - 1) and sizes[-1] == last


@pytest.fixture
def store(tmp_path, tokenizer):
    """60 chats of different lengths, some with two assistant messages, tokenized."""
    rows = []
    for i in range(60):
        row = {'instruction': f'Count {i}', 'output': 'one two ' * (1 + i * 7 % 23)}
        rows.append(row | {'history': [['Hi', f'Hello {i}']]} if i % 3 else row)
    (tmp_path / 'rows.json').write_text(json.dumps(rows))
    encoder = Encoder(ChatTokenizer(tokenizer, resolve('chatml', tokenizer)), 256, 'error')
    return prepare(Source(path=str(tmp_path / 'rows.json')), encoder, num_proc=1, max_bad_rows=0.0)[0]


@pytest.mark.parametrize('mode', ['none', 'fit', 'exact', 'stream'])
def test_all_tokens_of_the_store_are_in_the_batches_exactly_once(store, mode):
    schedule = schedule_of(packed(store.lengths, 256, mode=mode), 3, 2, seed=5)
    assert (max(map(len, schedule.sequences)) > 1) == (mode != 'none')
    steps = ScheduledSteps(store, store.content_hash, schedule, steps=schedule.steps_per_epoch, pad_id=0)
    batches = list(chain.from_iterable(step_loader(steps, 0)))
    seen = Counter()
    for batch in batches:
        assert batch.num_tokens == (batch.input_ids != 0).sum()
        assert batch.num_targets == (batch.targets != IGNORE_INDEX).sum()
        seen.update(batch.input_ids[batch.input_ids != 0].tolist())  # id 0 pads and is in no sample
    wanted = Counter(chain.from_iterable(store.ids(i).tolist() for i in range(len(store))))
    assert 0 not in wanted and seen == wanted
    assert sum(b.num_targets for b in batches) == sum(np.diff(store.spans(i)).sum() for i in range(len(store)))


def test_positions_restart_and_targets_are_the_next_token_of_the_same_sample(store):
    sequences = list(packed(store.lengths, 256))[:6]
    batch = collate(store, sequences, pad_id=0)
    for row, sequence in enumerate(sequences):
        at = 0
        for index in sequence[:, 0]:
            ids, place = store.ids(index), slice(at, at + len(store.ids(index)))
            wanted = np.full(len(ids), IGNORE_INDEX)
            for start, end in store.spans(index):
                wanted[start - 1 : end - 1] = ids[start:end]
            assert (batch.input_ids[row, place].numpy() == ids).all()
            assert (batch.targets[row, place].numpy() == wanted).all()
            assert batch.position_ids[row, place].tolist() == list(range(len(ids)))
            at += len(ids)
        assert (batch.targets[row, at:] == IGNORE_INDEX).all()
        assert batch.position_ids[row, at:].tolist() == list(range(batch.input_ids.shape[1] - at))


def test_pad_id_has_no_effect_on_the_targets(store, tokenizer):
    sequences = [np.array([[i, 0, store.lengths[i]]]) for i in (0, 5, 9)]
    zero, eos = (collate(store, sequences, pad) for pad in (0, tokenizer.eos_token_id))
    assert (zero.targets == eos.targets).all() and (zero.num_targets, zero.num_tokens) == (
        eos.num_targets,
        eos.num_tokens,
    )
    assert zero.position_ids is None  # one sample per sequence needs no positions


@pytest.mark.parametrize('seed', range(20))
def test_exact_fills_every_sequence_but_the_last_and_has_each_token_once(seed):
    rng = np.random.default_rng(seed)
    max_length = int(rng.integers(8, 60))
    lengths = rng.integers(1, max_length + 1, size=rng.integers(1, 80))
    sequences = packed(lengths, max_length, seed, 'exact')
    assert set(sequences.lengths[:-1]) <= {max_length} and 0 < sequences.lengths[-1] <= max_length
    seen = Counter((int(i), token) for i, first, stop in sequences.ranges for token in range(first, stop))
    assert set(seen.values()) == {1} and len(seen) == lengths.sum()
    assert (packed(lengths, max_length, seed, 'stream').ranges == sequences.ranges).all()


def test_the_picture_in_the_docstring():
    lengths = np.array([5, 3, 7, 2, 4])
    fit = [sorted(ranges[:, 0].tolist()) for ranges in packed(lengths, 8)]
    assert sorted(fit) == [[0, 1], [2], [3, 4]]
    assert packed(lengths, 8, mode='exact').lengths.tolist() == [8, 8, 5]


@pytest.mark.parametrize('mode', ['exact', 'stream'])
def test_a_cut_loses_no_target_and_a_stream_sees_earlier_samples(store, mode):
    sequences = packed(store.lengths, 100, mode=mode)
    batch = collate(store, list(sequences), 0, sequences.concatenated)
    wanted = sum(int(np.diff(store.spans(i)).sum()) for i in range(len(store)))
    assert batch.num_targets == wanted and sequences.concatenated == (mode == 'stream')
    assert (batch.position_ids is None) == (mode == 'stream')
    for row, ranges in enumerate(sequences):
        last, first, stop = ranges[-1]
        end = int(sequences.lengths[row]) - 1
        spans, ids = store.spans(last), store.ids(last)
        inside = stop < len(ids) and any(start <= stop < finish for start, finish in spans)
        assert batch.targets[row, end] == (int(ids[stop]) if inside else IGNORE_INDEX)


def test_longest_first_puts_the_longest_sequences_into_the_first_step_only(chat_lengths):
    sequences = packed(chat_lengths, 2048, mode='none')
    schedule = schedule_of(sequences, 4, 2, 0, longest_first=True)
    assert samples_of(schedule.step(0)) == np.argsort(-chat_lengths, kind='stable')[:8].tolist()
    for number in (0, 1):
        assert sorted(chain.from_iterable(map(samples_of, epoch(schedule, number)))) == list(range(len(chat_lengths)))
    assert samples_of(schedule.step(schedule.steps_per_epoch)) != samples_of(schedule.step(0))


@pytest.mark.parametrize('mode', ['none', 'fit', 'exact', 'stream'])
def test_repeated_samples_are_packed_as_often(mode, chat_lengths):
    indices = np.concatenate([np.arange(50), np.arange(10)])
    ranges = pack(mode, chat_lengths, indices, 2048, 0).ranges
    tokens = Counter()
    for index, first, stop in ranges.tolist():
        tokens[index] += stop - first
    assert tokens == {i: int(chat_lengths[i]) * (2 if i < 10 else 1) for i in range(50)}
