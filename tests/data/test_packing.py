"""The packing plan: every sample once, nothing too long, decided by lengths, seed and epoch alone."""

import json
from collections import Counter
from itertools import chain

import numpy as np
import pytest

from xtune.config.sections import Source
from xtune.data.batch_schedule import BatchSchedule
from xtune.data.batches import IGNORE, collate
from xtune.data.encode import Encoder
from xtune.data.packing import pack, pack_fit
from xtune.data.prepare import prepare
from xtune.data.steps import PlannedSteps, step_loader
from xtune.data.tokenise import Tokeniser
from xtune.templates.resolve import resolve


def samples_of(step):
    """Sample indices of one optimizer step."""
    return [int(piece[0]) for micro in step for pieces in micro for piece in pieces]


def plain(steps):
    """Steps as lists, to compare."""
    return [[[pieces.tolist() for pieces in micro] for micro in step] for step in steps]


def epoch(plan, number):
    steps = plan.steps_per_epoch
    return [plan.step(i) for i in range(number * steps, (number + 1) * steps)]


def packed(lengths, max_length=512, seed=0, mode='fit'):
    return pack(mode, lengths, np.arange(len(lengths)), max_length, seed)


@pytest.fixture(scope='module')
def chat_lengths():
    """3000 lengths as in chat data: many short, few long."""
    return np.clip(np.random.default_rng(7).lognormal(5, 0.8, 3000).astype(np.int64), 10, 2048)


@pytest.mark.parametrize('seed', range(50))
def test_each_sample_once_an_epoch_and_no_sequence_too_long(seed):
    rng = np.random.default_rng(seed)
    max_length = int(rng.integers(8, 300))
    lengths = rng.integers(1, max_length + 1, size=rng.integers(1, 400))
    sequences = packed(lengths, max_length, seed)
    assert sequences.lengths.max() <= max_length
    assert sequences.lengths.tolist() == [sum(lengths[i] for i, *_ in pieces) for pieces in sequences]
    assert sorted(sequences.pieces[:, 0]) == list(range(len(lengths)))
    assert len(sequences) <= 2 * lengths.sum() / max_length + 1  # no two of them would fit into one
    plan = BatchSchedule(sequences, int(rng.integers(1, 5)), int(rng.integers(1, 4)), seed)
    for number in (0, 1):
        assert sorted(chain.from_iterable(map(samples_of, epoch(plan, number)))) == list(range(len(lengths)))


def test_only_the_given_samples_are_packed(chat_lengths):
    chosen = np.arange(0, 3000, 7)
    assert sorted(chain.from_iterable(pack_fit(chat_lengths, chosen, 2048, 0))) == chosen.tolist()


@pytest.mark.parametrize('max_length', [2048, 4096])
def test_sequences_are_filled_well(chat_lengths, max_length):
    sequences = packed(chat_lengths, max_length)
    assert chat_lengths.sum() / (len(sequences) * max_length) > 0.9


def test_plan_follows_from_seed_and_epoch_alone(chat_lengths):
    def plan(seed, accumulate=2):
        return BatchSchedule(packed(chat_lengths, 2048, seed), 2, accumulate, seed)

    first = plain(epoch(plan(1), 0))
    assert plain(epoch(plan(1), 0)) == first
    assert plain(epoch(plan(1), 1)) != first
    assert plain(epoch(plan(2), 0)) != first
    order = list(chain.from_iterable(map(samples_of, epoch(plan(1), 0))))
    assert list(chain.from_iterable(map(samples_of, epoch(plan(1, accumulate=8), 0)))) == order
    assert packed(chat_lengths, seed=1).pieces.tolist() != packed(chat_lengths, seed=2).pieces.tolist()


def test_steps_may_be_asked_in_any_order(chat_lengths):
    plan = BatchSchedule(packed(chat_lengths, 2048), 4, 2, 0)
    steps = {i: plain([plan.step(i)]) for i in range(2 * plan.steps_per_epoch)}
    assert all(plain([plan.step(i)]) == steps[i] for i in reversed(steps))


@pytest.mark.parametrize(
    'count, batch, accumulate, steps, last',
    [(24, 2, 3, 4, [2, 2, 2]), (25, 2, 3, 5, [1]), (27, 2, 3, 5, [2, 1]), (3, 4, 2, 1, [3]), (1, 1, 1, 1, [1])],
)
def test_steps_per_epoch_and_the_partial_last_step(count, batch, accumulate, steps, last):
    plan = BatchSchedule(packed(np.ones(count, np.int64), mode='none'), batch, accumulate, seed=0)
    assert plan.steps_per_epoch == steps
    sizes = [[len(micro) for micro in step] for step in epoch(plan, 0)]
    assert sizes[:-1] == [[batch] * accumulate] * (steps - 1) and sizes[-1] == last


@pytest.fixture
def store(tmp_path, tokenizer):
    """60 chats of different lengths, some with two replies, as prepared for training."""
    rows = []
    for i in range(60):
        row = {'instruction': f'Count {i}', 'output': 'one two ' * (1 + i * 7 % 23)}
        rows.append(row | {'history': [['Hi', f'Hello {i}']]} if i % 3 else row)
    (tmp_path / 'rows.json').write_text(json.dumps(rows))
    encoder = Encoder(Tokeniser(tokenizer, resolve('chatml', tokenizer)), 256, 'error')
    return prepare(Source(path=str(tmp_path / 'rows.json')), encoder, 1, 0.0)[0]


@pytest.mark.parametrize('mode', ['none', 'fit', 'exact', 'stream'])
def test_all_tokens_of_the_store_are_in_the_batches_exactly_once(store, mode):
    plan = BatchSchedule(packed(store.lengths, 256, mode=mode), 3, 2, seed=5)
    assert (max(map(len, plan.sequences)) > 1) == (mode != 'none')
    batches = list(
        chain.from_iterable(step_loader(PlannedSteps(store, store.content, plan, plan.steps_per_epoch, 0), 0))
    )
    seen = Counter()
    for batch in batches:
        assert batch.tokens == (batch.input_ids != 0).sum()
        assert batch.trained == (batch.targets != IGNORE).sum()
        seen.update(batch.input_ids[batch.input_ids != 0].tolist())  # id 0 pads and is in no sample
    wanted = Counter(chain.from_iterable(store.ids(i).tolist() for i in range(len(store))))
    assert 0 not in wanted and seen == wanted
    assert sum(b.trained for b in batches) == sum(np.diff(store.spans(i)).sum() for i in range(len(store)))


def test_positions_restart_and_targets_are_the_next_token_of_the_same_sample(store):
    sequences = list(packed(store.lengths, 256))[:6]
    batch = collate(store, sequences, pad_id=0)
    for row, sequence in enumerate(sequences):
        at = 0
        for index in sequence[:, 0]:
            ids, place = store.ids(index), slice(at, at + len(store.ids(index)))
            wanted = np.full(len(ids), IGNORE)
            for start, end in store.spans(index):
                wanted[start - 1 : end - 1] = ids[start:end]
            assert (batch.input_ids[row, place].numpy() == ids).all()
            assert (batch.targets[row, place].numpy() == wanted).all()
            assert batch.position_ids[row, place].tolist() == list(range(len(ids)))
            at += len(ids)
        assert (batch.targets[row, at:] == IGNORE).all()
        assert batch.position_ids[row, at:].tolist() == list(range(batch.input_ids.shape[1] - at))


def test_pad_id_has_no_effect_on_the_targets(store, tokenizer):
    sequences = [np.array([[i, 0, store.lengths[i]]]) for i in (0, 5, 9)]
    zero, eos = (collate(store, sequences, pad) for pad in (0, tokenizer.eos_token_id))
    assert (zero.targets == eos.targets).all() and (zero.trained, zero.tokens) == (eos.trained, eos.tokens)
    assert zero.position_ids is None  # one sample a sequence needs no positions


@pytest.mark.parametrize('seed', range(20))
def test_exact_fills_every_sequence_but_the_last_and_holds_each_token_once(seed):
    rng = np.random.default_rng(seed)
    max_length = int(rng.integers(8, 60))
    lengths = rng.integers(1, max_length + 1, size=rng.integers(1, 80))
    sequences = packed(lengths, max_length, seed, 'exact')
    assert set(sequences.lengths[:-1]) <= {max_length} and 0 < sequences.lengths[-1] <= max_length
    seen = Counter((int(i), token) for i, first, stop in sequences.pieces for token in range(first, stop))
    assert set(seen.values()) == {1} and len(seen) == lengths.sum()
    assert (packed(lengths, max_length, seed, 'stream').pieces == sequences.pieces).all()


def test_the_picture_in_the_docstring():
    lengths = np.array([5, 3, 7, 2, 4])
    fit = [sorted(pieces[:, 0].tolist()) for pieces in packed(lengths, 8)]
    assert sorted(fit) == [[0, 1], [2], [3, 4]]
    assert packed(lengths, 8, mode='exact').lengths.tolist() == [8, 8, 5]


@pytest.mark.parametrize('mode', ['exact', 'stream'])
def test_a_cut_loses_no_target_and_a_stream_sees_earlier_samples(store, mode):
    sequences = packed(store.lengths, 100, mode=mode)
    batch = collate(store, list(sequences), 0, sequences.joined)
    wanted = sum(int(np.diff(store.spans(i)).sum()) for i in range(len(store)))
    assert batch.trained == wanted and sequences.joined == (mode == 'stream')
    assert (batch.position_ids is None) == (mode == 'stream')
    for row, pieces in enumerate(sequences):
        last, first, stop = pieces[-1]
        end = int(sequences.lengths[row]) - 1
        spans, ids = store.spans(last), store.ids(last)
        inside = stop < len(ids) and any(start <= stop < finish for start, finish in spans)
        assert batch.targets[row, end] == (int(ids[stop]) if inside else IGNORE)


def test_longest_first_puts_the_longest_sequences_into_the_first_step_only(chat_lengths):
    sequences = packed(chat_lengths, 2048, mode='none')
    plan = BatchSchedule(sequences, 4, 2, 0, longest_first=True)
    assert samples_of(plan.step(0)) == np.argsort(-chat_lengths, kind='stable')[:8].tolist()
    for number in (0, 1):
        assert sorted(chain.from_iterable(map(samples_of, epoch(plan, number)))) == list(range(len(chat_lengths)))
    assert samples_of(plan.step(plan.steps_per_epoch)) != samples_of(plan.step(0))


@pytest.mark.parametrize('mode', ['none', 'fit', 'exact', 'stream'])
def test_repeated_samples_are_packed_as_often(mode, chat_lengths):
    indices = np.concatenate([np.arange(50), np.arange(10)])
    pieces = pack(mode, chat_lengths, indices, 2048, 0).pieces
    tokens = Counter()
    for index, first, stop in pieces.tolist():
        tokens[index] += stop - first
    assert tokens == {i: int(chat_lengths[i]) * (2 if i < 10 else 1) for i in range(50)}
