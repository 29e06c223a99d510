"""One gradient, however the sequences of an optimizer step are spread over micro-batches and packs."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from xtune.config.sections import Source
from xtune.data.batches import collate
from xtune.data.encode import Encoder
from xtune.data.packing import pack_fit
from xtune.data.prepare import prepare
from xtune.models.build import recompute_activations
from xtune.models.finetune import SupervisedFineTuning
from xtune.templates.resolve import resolve


@pytest.fixture
def store(alpaca_file, tokenizer):
    encoder = Encoder(tokenizer, resolve('chatml', tokenizer), max_length=128, overlong='error')
    return prepare(Source(str(alpaca_file)), encoder, 1, 0.0)[0]


@pytest.fixture
def llm(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


class KeepGradients:
    """Stands in for the optimizer: the step is not taken."""

    def backward(self, loss):
        loss.backward()

    def clip(self):
        return torch.zeros(())

    def step(self):
        pass

    def zero_grad(self):
        pass


def gradients(llm, store, sequences, batch_size):
    llm.zero_grad()
    micro_batches = [collate(store, sequences[i : i + batch_size], 2) for i in range(0, len(sequences), batch_size)]
    out = SupervisedFineTuning(llm, torch.float32).train_step(micro_batches, KeepGradients())
    return out['loss'], torch.cat([p.grad.flatten() for p in llm.parameters()])


@pytest.mark.parametrize('batch_size', [2, 1])
def test_batch_4x1_2x2_and_1x4_give_one_gradient(llm, store, batch_size):
    sequences = [[0], [5], [10], [23]]
    loss, wanted = gradients(llm, store, sequences, 4)
    other_loss, found = gradients(llm, store, sequences, batch_size)
    assert other_loss == pytest.approx(loss, abs=1e-5)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('checkpointing', [False, True])
def test_packed_and_unpacked_give_one_gradient(llm, store, checkpointing):
    if checkpointing:
        recompute_activations(llm)
        llm.train()
    indices = np.arange(len(store))
    packed = pack_fit(store.lengths, indices, 128, seed=0)
    assert len(packed) < len(store) / 2
    loss, wanted = gradients(llm, store, [[int(i)] for i in indices], 4)
    for batch_size in (1, 3):
        other_loss, found = gradients(llm, store, packed, batch_size)
        assert other_loss == pytest.approx(loss, abs=1e-5)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_loss_is_the_mean_over_trained_tokens_computed_by_hand(llm, store):
    total, count = 0.0, 0
    for index in range(4):
        ids = torch.from_numpy(store.ids(index).astype(np.int64))
        logits = llm(input_ids=ids[None]).logits[0]
        for start, end in store.spans(index):
            total += F.cross_entropy(logits[start - 1 : end - 1], ids[start:end], reduction='sum').item()
            count += end - start
    loss, _ = gradients(llm, store, [[0, 1], [2], [3]], 2)
    assert loss == pytest.approx(total / count, abs=1e-5)


def test_padding_and_other_samples_do_not_change_logits(llm, store):
    alone = collate(store, [[3]], 2)
    together = collate(store, [[3, 7], [0, 1, 2]], 2)
    with torch.no_grad():
        wanted = llm(input_ids=alone.input_ids).logits[0]
        found = llm(input_ids=together.input_ids, position_ids=together.position_ids, use_cache=False).logits[0]
    torch.testing.assert_close(found[: len(wanted)], wanted, rtol=1e-5, atol=1e-5)
