"""The packing plan: every sample once, nothing too long, decided by lengths, seed and epoch alone."""

import json
from collections import Counter
from itertools import chain

import numpy as np
import pytest

from xtune.config.sections import Source
from xtune.data.batches import IGNORE, StepDataset, collate, step_loader
from xtune.data.encode import Encoder
from xtune.data.packing import Plan, pack_fit
from xtune.data.prepare import prepare
from xtune.templates.resolve import resolve


def samples_of(step):
    """Sample indices of one optimizer step."""
    return list(chain.from_iterable(chain.from_iterable(step)))


def epoch(plan, number):
    steps = plan.steps_per_epoch
    return [plan.step(i) for i in range(number * steps, (number + 1) * steps)]


def packed(lengths, max_length=512, seed=0):
    return pack_fit(lengths, np.arange(len(lengths)), max_length, seed)


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
    assert max(sum(lengths[i] for i in sequence) for sequence in sequences) <= max_length
    assert sorted(chain.from_iterable(sequences)) == list(range(len(lengths)))
    assert len(sequences) <= 2 * lengths.sum() / max_length + 1  # no two of them would fit into one
    plan = Plan(sequences, int(rng.integers(1, 5)), int(rng.integers(1, 4)), seed)
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
        return Plan(packed(chat_lengths, 2048, seed), 2, accumulate, seed)

    first = epoch(plan(1), 0)
    assert epoch(plan(1), 0) == first
    assert epoch(plan(1), 1) != first
    assert epoch(plan(2), 0) != first
    order = list(chain.from_iterable(map(samples_of, first)))
    assert list(chain.from_iterable(map(samples_of, epoch(plan(1, accumulate=8), 0)))) == order
    assert packed(chat_lengths, seed=1) != packed(chat_lengths, seed=2)


def test_steps_may_be_asked_in_any_order(chat_lengths):
    plan = Plan(packed(chat_lengths, 2048), 4, 2, 0)
    steps = {i: plan.step(i) for i in range(2 * plan.steps_per_epoch)}
    assert all(plan.step(i) == steps[i] for i in reversed(steps))


@pytest.mark.parametrize(
    'count, batch, accumulate, steps, last',
    [(24, 2, 3, 4, [2, 2, 2]), (25, 2, 3, 5, [1]), (27, 2, 3, 5, [2, 1]), (3, 4, 2, 1, [3]), (1, 1, 1, 1, [1])],
)
def test_steps_per_epoch_and_the_partial_last_step(count, batch, accumulate, steps, last):
    plan = Plan([[i] for i in range(count)], batch, accumulate, seed=0)
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
    encoder = Encoder(tokenizer, resolve('chatml', tokenizer), 256, 'error')
    return prepare(Source(path=str(tmp_path / 'rows.json')), encoder, 1, 0.0)[0]


def test_all_tokens_of_the_store_are_in_the_batches_exactly_once(store):
    plan = Plan(packed(store.lengths, 256), 3, 2, seed=5)
    assert max(map(len, plan.sequences)) > 1
    batches = list(chain.from_iterable(step_loader(StepDataset(store, plan, plan.steps_per_epoch, 0), 0)))
    seen = Counter()
    for batch in batches:
        assert batch.tokens == sum(store.lengths[i] for i in batch.samples)
        assert batch.trained == (batch.targets != IGNORE).sum()
        seen.update(batch.input_ids[batch.input_ids != 0].tolist())  # id 0 pads and is in no sample
    wanted = Counter(chain.from_iterable(store.ids(i).tolist() for i in range(len(store))))
    assert 0 not in wanted and seen == wanted
    assert sum(b.trained for b in batches) == sum(np.diff(store.spans(i)).sum() for i in range(len(store)))


def test_positions_restart_and_targets_are_the_next_token_of_the_same_sample(store):
    sequences = packed(store.lengths, 256)[:6]
    batch = collate(store, sequences, pad_id=0)
    for row, sequence in enumerate(sequences):
        at = 0
        for index in sequence:
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
    sequences = [[0], [5], [9]]
    zero, eos = (collate(store, sequences, pad) for pad in (0, tokenizer.eos_token_id))
    assert (zero.targets == eos.targets).all() and (zero.trained, zero.tokens) == (eos.trained, eos.tokens)
    assert zero.position_ids is None  # one sample a sequence needs no positions
