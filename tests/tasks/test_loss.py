"""One gradient, however the sequences of an optimizer step are split into micro-batches and packed."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from training import make_trainer
from transformers import AutoModelForCausalLM

from xtune.config.sections import Source
from xtune.data.chat_tokenizer import ChatTokenizer
from xtune.data.collate import collate
from xtune.data.encode import Encoder
from xtune.data.packing import pack
from xtune.data.prepare import prepare
from xtune.engine.strategies import Replicated
from xtune.optimizations.activation_checkpointing import ActivationCheckpointing, CheckpointPolicy
from xtune.tasks.sft import SupervisedFineTuning
from xtune.templates.resolve import resolve


@pytest.fixture
def store(alpaca_file, tokenizer):
    encoder = Encoder(ChatTokenizer(tokenizer, resolve('chatml', tokenizer)), max_length=128, overlong='error')
    return prepare(Source(str(alpaca_file)), encoder, num_proc=1, max_bad_rows=0.0)[0]


@pytest.fixture
def llm(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


class KeepGradients(Replicated):
    """Does not update the weights, and keeps the gradients."""

    def reduce_and_clip(self, max_grad_norm):
        return torch.zeros(())

    def optimizer_step(self, values):
        return self.read(values)

    def zero_grad(self):
        pass


def uncut(store, sequences):
    """Return the token ranges of complete samples."""
    return [np.array([[i, 0, store.lengths[i]] for i in sequence]) for sequence in sequences]


def gradients(llm, store, sequences, batch_size, concatenated=False):
    llm.zero_grad()
    starts = range(0, len(sequences), batch_size)
    micro_batches = [collate(store, sequences[i : i + batch_size], 2, concatenated) for i in starts]
    task = SupervisedFineTuning(llm, torch.float32)
    trainer = make_trainer(task, torch.optim.SGD(llm.parameters()), strategy=KeepGradients())
    out = trainer.train_step(micro_batches)
    return out.loss, torch.cat([p.grad.flatten() for p in llm.parameters()])


@pytest.mark.parametrize('batch_size', [2, 1])
def test_batch_4x1_2x2_and_1x4_give_one_gradient(llm, store, batch_size):
    sequences = uncut(store, [[0], [5], [10], [23]])
    loss, expected = gradients(llm, store, sequences, 4)
    loss_of_split, gradient = gradients(llm, store, sequences, batch_size)
    assert loss_of_split == pytest.approx(loss, abs=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('checkpointing', [False, True])
def test_packed_and_unpacked_give_one_gradient(llm, store, checkpointing):
    if checkpointing:
        ActivationCheckpointing(llm).apply(CheckpointPolicy())
        llm.train()
    indices = np.arange(len(store))
    packed = list(pack('fit', store.lengths, indices, 128, seed=0))
    assert len(packed) < len(store) / 2
    loss, expected = gradients(llm, store, list(pack('none', store.lengths, indices, 128, seed=0)), 4)
    for batch_size in (1, 3):
        loss_of_split, gradient = gradients(llm, store, packed, batch_size)
        assert loss_of_split == pytest.approx(loss, abs=1e-5)
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


def test_loss_is_the_mean_over_trained_tokens_computed_by_hand(llm, store):
    total, count = 0.0, 0
    for index in range(4):
        ids = torch.from_numpy(store.ids(index).astype(np.int64))
        logits = llm(input_ids=ids[None]).logits[0]
        for start, end in store.spans(index):
            total += F.cross_entropy(logits[start - 1 : end - 1], ids[start:end], reduction='sum').item()
            count += end - start
    loss, _ = gradients(llm, store, uncut(store, [[0, 1], [2], [3]]), 2)
    assert loss == pytest.approx(total / count, abs=1e-5)


def test_padding_and_other_samples_do_not_change_logits(llm, store):
    separate = collate(store, uncut(store, [[3]]), 2)
    batch = collate(store, uncut(store, [[3, 7], [0, 1, 2]]), 2)
    with torch.no_grad():
        expected = llm(input_ids=separate.input_ids).logits[0]
        gradient = llm(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False).logits[0]
    torch.testing.assert_close(gradient[: len(expected)], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('mode', ['exact', 'stream'])
def test_cut_sequences_give_the_loss_of_their_text(llm, store, mode):
    packed = pack(mode, store.lengths, np.arange(len(store)), 50, seed=0)
    total, count = 0.0, 0
    for token_ranges in packed:
        sample_ids = [torch.from_numpy(store.ids(i)[first:stop].astype(np.int64)) for i, first, stop in token_ranges]
        concatenated = (
            [torch.cat(sample_ids)] if mode == 'stream' else sample_ids
        )  # samples attend to each other only in a stream
        logits = torch.cat([llm(input_ids=ids[None]).logits[0] for ids in concatenated])
        at = 0
        for (index, first, stop), ids in zip(token_ranges, sample_ids, strict=True):
            for start, end in store.spans(index):
                for token in range(max(start, first + 1), min(end, stop + 1)):
                    target = torch.tensor(int(store.ids(index)[token]))
                    total += F.cross_entropy(logits[at + token - first - 1], target).item()
                    count += 1
            at += len(ids)
    loss, _ = gradients(llm, store, list(packed), 3, concatenated=mode == 'stream')
    assert count == sum(int(np.diff(store.spans(i)).sum()) for i in range(len(store)))  # a cut loses no target
    assert loss == pytest.approx(total / count, abs=1e-5)
