"""Packed samples must have the loss of separate samples; otherwise the parity check fails."""

import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import small_classes, small_model
from torch.nn.functional import cross_entropy, pad, silu

from xtune.data.batches import IGNORE_INDEX
from xtune.data.collate import collate
from xtune.optimizations.activation_checkpointing import ActivationCheckpointing, CheckpointPolicy
from xtune.optimizations.packing_parity import PackingParity, Verdict
from xtune.optimizations.recurrent_layers import flatten_packed, sample_boundary_kwargs
from xtune.tasks.sft import SupervisedFineTuning

CPU = torch.device('cpu')
# Class -> whether it isolates packed samples on a CPU.
SOME = {
    'LlamaForCausalLM': True,
    'GemmaForCausalLM': True,
    'GPT2LMHeadModel': True,
    'Qwen3MoeForCausalLM': True,
    'DeepseekV3ForCausalLM': True,
    'GraniteMoeHybridForCausalLM': False,
    'NemotronHForCausalLM': False,
    'BambaForCausalLM': False,
    'FalconH1ForCausalLM': False,
    'JambaForCausalLM': False,
    'Qwen3_5ForCausalLM': False,
    'Qwen3NextForCausalLM': False,
    'Lfm2ForCausalLM': False,
    'MambaForCausalLM': False,
    'RwkvForCausalLM': False,
    'OPTForCausalLM': False,
}


class Store:
    """Samples of random tokens, all trained."""

    def __init__(self, lengths, vocabulary=90):
        random = np.random.default_rng(0)
        self._ids = [random.integers(3, vocabulary, length) for length in lengths]

    def ids(self, index):
        return self._ids[index]

    def spans(self, index):
        return np.array([[0, len(self._ids[index])]])

    def place(self, index):
        return str(index)


def batches(lengths=(5, 13, 9, 11), num_sequences=1):
    """Return the samples packed into `num_sequences` sequences, and one sample per sequence."""
    store = Store(lengths)
    token_ranges = [np.array([[number, 0, length]]) for number, length in enumerate(lengths)]
    step = -(-len(token_ranges) // num_sequences)
    packed = [np.concatenate(token_ranges[i : i + step]) for i in range(0, len(token_ranges), step)]
    return collate(store, packed, 0), collate(store, token_ranges, 0)


@torch.no_grad()
def mean_losses(model):
    """Return the loss of the same samples, packed and separate. Some classes do not support `logits_to_keep`."""
    losses = []
    for batch in batches():
        kwargs = {} if batch.position_ids is None else {'position_ids': batch.position_ids}
        logits = model(input_ids=batch.input_ids, use_cache=False, **kwargs).logits
        losses.append(cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE_INDEX).item())
    return losses


def verdict(model, dtype=torch.float32):
    return PackingParity(model, dtype, CPU, nullcontext()).verdict()


def check_class(name):
    """Return whether the class isolates packed samples; asserts that loss and parity check agree."""
    model = small_model(name)
    try:
        packed, alone = mean_losses(model)
        same = abs(packed - alone) < 1e-4 * alone
    except TypeError:  # it takes no position_ids
        same = False
    result = verdict(model)
    assert result.independent == same, f'{name}: {result}'
    return same


@pytest.mark.parametrize('name', SOME)
def test_the_check_agrees_with_the_loss(name):
    assert check_class(name) == SOME[name]


@pytest.mark.parametrize(
    'name', ['LlamaForCausalLM', 'Qwen3MoeForCausalLM', 'Qwen3_5ForCausalLM', 'FalconH1ForCausalLM']
)
def test_rounding_changes_no_verdict(name):
    assert verdict(small_model(name).bfloat16(), torch.bfloat16).independent == SOME[name]


@pytest.mark.gpu
@pytest.mark.parametrize('name', SOME)
def test_kernels_on_a_gpu_change_a_verdict_only_by_boundaries(name):
    device = torch.device('cuda')
    model = small_model(name).to(device, torch.bfloat16)
    result = PackingParity(model, torch.bfloat16, device, nullcontext()).verdict()
    assert result.independent == SOME[name] or (result.independent and result.needs_boundaries)


@pytest.mark.slow
@pytest.mark.parametrize('name', small_classes())
def test_the_check_agrees_with_the_loss_for_every_class(name):
    check_class(name)


class LeakingLayer(torch.nn.Module):
    """A layer that adds `share` of the previous token to each token, like a recurrent state."""

    def __init__(self, layer, share):
        super().__init__()
        self.layer, self.share = layer, share

    def forward(self, hidden, *args, **kwargs):
        return self.layer(hidden + self.share * hidden.roll(1, 1), *args, **kwargs)


@pytest.mark.parametrize('number', [0, 1])
@pytest.mark.parametrize('share', [1.0, 0.01])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_a_small_leak_in_one_layer_is_found(dtype, share, number):
    model = small_model('LlamaForCausalLM')
    model.model.layers[number] = LeakingLayer(model.model.layers[number], share)
    result = verdict(model.to(dtype), dtype)
    assert not result.independent and result.reason


def test_positions_that_do_not_restart_are_found():
    model = small_model('GPT2LMHeadModel')
    forward = model.forward
    model.forward = lambda position_ids=None, **kwargs: forward(
        **kwargs, position_ids=None if position_ids is None else torch.arange(position_ids.shape[1])[None]
    )
    assert not verdict(model).independent


def test_a_model_that_fails_on_packed_samples_is_refused():
    model = small_model('LlamaForCausalLM')
    forward = model.forward
    model.forward = lambda input_ids, use_cache: forward(input_ids=input_ids, use_cache=use_cache)
    result = verdict(model)
    assert not (result.independent or result.fails) and 'position_ids' in result.reason


def test_broken_weights_have_no_verdict():
    model = small_model('LlamaForCausalLM')
    model.lm_head.weight.data[0] = torch.nan
    assert verdict(model) is None


def test_the_state_of_the_model_is_restored():
    model = small_model('LlamaForCausalLM').train()
    model.model.layers[1].eval()
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    verdict(model)
    assert torch.equal(torch.rand(3), expected)
    assert model.training and not model.model.layers[1].training
    assert all(p.grad is None for p in model.parameters())


def convolve(hidden, weight, bias=None, activation=None, seq_idx=None, **others):
    """Compute what the kernel of causal_conv1d computes: with seq_idx, samples in [B, D, S] stay separate."""
    assert others.keys() <= {'cu_seq_lens_q', 'cu_seq_lens_k', 'max_length_q', 'max_length_k'}
    width, out = weight.shape[1], torch.zeros_like(hidden)
    for back in range(width):
        moved = pad(hidden, (back, 0))[..., : hidden.shape[-1]]
        if seq_idx is not None:
            before = pad(seq_idx, (back, 0), value=-1)[..., : hidden.shape[-1]]
            moved = moved * (before == seq_idx)[:, None]
        out = out + moved * weight[:, width - 1 - back, None]
    out = out if bias is None else out + bias[:, None]
    return out if activation is None else silu(out)


@pytest.fixture
def with_kernel(monkeypatch):
    """An LFM2 whose convolutions accept seq_idx, like with the package causal_conv1d on a GPU."""
    from transformers.models.lfm2 import modeling_lfm2

    monkeypatch.setattr(modeling_lfm2, 'causal_conv1d_fn', convolve)
    return small_model('Lfm2ForCausalLM')


def test_samples_are_independent_if_kernels_support_boundaries(with_kernel):
    assert verdict(with_kernel) == Verdict(True, True, reason=verdict(with_kernel).reason)


@pytest.mark.parametrize('num_sequences', [1, 2])
@pytest.mark.parametrize('checkpointed', [False, True])
def test_boundaries_give_loss_and_gradients_of_samples_alone(with_kernel, num_sequences, checkpointed):
    if checkpointed:
        ActivationCheckpointing(with_kernel).apply(CheckpointPolicy())
    task = SupervisedFineTuning(with_kernel, torch.float32).train()
    task.boundaries = True
    result = []
    for batch in batches(num_sequences=num_sequences):
        with_kernel.zero_grad()
        loss = task(batch)
        loss.backward()
        result.append((loss.item(), [p.grad.clone() for p in with_kernel.parameters()]))
    (packed, gradients), (alone, expected_gradients) = result
    assert packed == pytest.approx(alone, rel=1e-5)
    for grad, expected in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(grad, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def test_boundaries_are_those_of_samples_and_padding():
    packed, alone = batches((5, 13, 9, 11), num_sequences=2)
    flattened = flatten_packed(packed)
    kwargs = sample_boundary_kwargs(flattened)
    assert flattened.input_ids.shape == (1, packed.input_ids.numel())
    assert kwargs['seq_idx'].dtype == torch.int32
    sizes = [5, 13, 2, 9, 11]  # the third is padding
    assert kwargs['seq_idx'].flatten().bincount().tolist() == sizes
    assert kwargs['cu_seq_lens_q'].diff()[: len(sizes)].tolist() == sizes
    assert kwargs['max_length_q'] >= max(sizes)
    assert sample_boundary_kwargs(alone) == {} and flatten_packed(alone) is alone


def documented(language):
    """Return the classes that the page on models lists as refused."""
    page = (Path(__file__).parents[2] / 'docs' / language / 'models.md').read_text(encoding='utf-8')
    section = page.split({'en': '## Packing', 'zh': '## 打包'}[language])[1].split('\n## ')[0]
    return set(re.findall(r'`(\w+(?:ForCausalLM|LMHeadModel|ModelWithLMHead|Decoder))`', section))


@pytest.mark.parametrize('language', ['en', 'zh'])
def test_the_pages_list_what_is_refused(language):
    refused = documented(language)
    assert refused <= set(small_classes())
    assert {name for name in SOME if name in refused} == {name for name, isolated in SOME.items() if not isolated}


@pytest.mark.slow
@pytest.mark.parametrize('name', small_classes())
def test_the_pages_list_every_class_that_is_refused(name):
    isolated = verdict(small_model(name)).independent
    assert (name in documented('en')) == (name in documented('zh')) == (not isolated)
