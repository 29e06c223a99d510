"""Varlen attention on packed sequences has the logits and gradients of masked attention and of separate samples."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch._dynamo.utils import counters
from training import make_trainer
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from xtune.data.batches import Padding
from xtune.data.collate import collate
from xtune.errors import ModelError
from xtune.ops.varlen_attention import CAUSAL, PER_SAMPLE, VARLEN
from xtune.optimizations.fused_lora import fuse_lora
from xtune.optimizations.master_weights import MasterWeights
from xtune.optimizations.packed_attention import PackedAttention, choose_attention, install_packed_attention
from xtune.tasks.lm_head import LmHead
from xtune.tasks.loss import summed_loss
from xtune.tasks.sft import SupervisedFineTuning

CPU = torch.device('cpu')
SMALL = dict(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    initializer_range=0.3,  # large, so that wrong attention changes the logits
    attn_implementation='sdpa',
    **dict(bos_token_id=1, eos_token_id=2, pad_token_id=0),
)
MODELS = {
    'llama': {},
    'qwen2': {},
    'qwen3': dict(head_dim=8),
    'mistral': dict(sliding_window=4),
    'gemma3_text': dict(head_dim=8, sliding_window=4, query_pre_attn_scalar=10),
    'phi3': dict(sliding_window=4),
    'mixtral': dict(num_local_experts=2),
    'starcoder2': dict(sliding_window=4, residual_dropout=0.0, embedding_dropout=0.0),
}
LENGTHS = [[7, 9, 3], [13, 1]]  # of the samples in two sequences


class Samples:
    """Random samples, all tokens trained."""

    def __init__(self, lengths):
        random = np.random.default_rng(0)
        self._ids = [random.integers(3, 64, n) for n in lengths]

    def ids(self, index):
        return self._ids[index]

    def spans(self, index):
        return np.array([[0, len(self._ids[index])]])

    def place(self, index):
        return f'row {index}'


def pack_samples(lengths):
    """Return the samples and the token ranges of each packed sequence."""
    first, packed = 0, []
    for sequence in lengths:
        packed.append(np.array([(first + i, 0, n) for i, n in enumerate(sequence)]))
        first += len(sequence)
    return Samples([n for sequence in lengths for n in sequence]), packed


def tiny(model_type, **options):
    torch.manual_seed(0)
    values = {**SMALL, **MODELS.get(model_type, {}), **options}
    implementation = values.pop('attn_implementation')
    return AutoModelForCausalLM.from_config(CONFIG_MAPPING[model_type](**values), attn_implementation=implementation)


def with_varlen_attention(llm, max_length=64):
    return install_packed_attention(llm, torch.float32, CPU, max_length, nullcontext())


def losses_and_gradients(llm, batches, attention=None):
    """Return the sum of the losses of `batches`, and its gradients."""
    llm.zero_grad()
    all_kwargs = [attention.model_kwargs(batch) if attention else {} for batch in batches]
    losses = [summed_loss(llm, batch, **kwargs) for batch, kwargs in zip(batches, all_kwargs, strict=True)]
    sum(losses).backward()
    return sum(losses).detach(), {name: p.grad.clone() for name, p in llm.named_parameters() if p.grad is not None}


def assert_equal(actual, expected):
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-5, atol=1e-5)
    assert actual[1].keys() == expected[1].keys()
    for name, grad in expected[1].items():
        torch.testing.assert_close(actual[1][name], grad, rtol=1e-4, atol=1e-5 * max(1, grad.abs().max().item()))


@pytest.mark.parametrize('model_type', MODELS)
def test_packed_logits_are_those_of_masked_attention_and_of_single_samples(model_type):
    llm = tiny(model_type)
    store, packed = pack_samples(LENGTHS)
    batch = collate(store, packed, pad_id=0)
    alone = [collate(store, [token_range[None]], pad_id=0) for sequence in packed for token_range in sequence]
    alone = [sample for sample in alone if sample.num_targets]
    masked, separate = losses_and_gradients(llm, [batch]), losses_and_gradients(llm, alone)
    attention = with_varlen_attention(llm)
    assert attention is not None
    varlen = losses_and_gradients(llm, [batch], attention)
    assert_equal(varlen, masked)
    assert_equal(varlen, separate)
    padded = collate(store, packed, pad_id=0, padding=Padding(min_length=40, with_positions=True))
    assert_equal(losses_and_gradients(llm, [padded], attention), masked)
    with attention.original_attention():
        assert_equal(losses_and_gradients(llm, [batch]), masked)


@pytest.mark.parametrize('model_type', sorted(MODELS.keys() - {'mixtral'}))  # mixtral sorts tokens by value
def test_unpacked_logits_are_the_same_without_a_search_for_samples(model_type):
    llm = tiny(model_type, **({'sliding_window': 16} if 'sliding_window' in MODELS[model_type] else {}))
    store, unpacked = pack_samples([[9], [13]])
    batch = collate(store, unpacked, pad_id=0)
    expected = losses_and_gradients(llm, [batch])
    attention = PackedAttention(llm, CAUSAL)
    assert_equal(losses_and_gradients(llm, [batch], attention), expected)
    # On the meta device, the values of position_ids cannot be read.
    meta = llm.to('meta')
    ids = torch.zeros(2, 13, dtype=torch.long, device='meta')
    meta(input_ids=ids, position_ids=ids, use_cache=False)
    with attention.original_attention(), pytest.raises(RuntimeError):
        meta(input_ids=ids, position_ids=ids, use_cache=False)


def test_sequences_beyond_the_sliding_window_are_refused():
    llm = tiny('mistral')
    PackedAttention(llm, CAUSAL)
    with pytest.raises(ModelError, match='speed.varlen_attention=False'):
        llm(input_ids=torch.ones(1, 5, dtype=torch.long), use_cache=False)


@pytest.mark.parametrize(
    ('model_type', 'device', 'dtype', 'max_length', 'packed', 'expected'),
    [
        ('llama', 'cuda', torch.bfloat16, 64, False, CAUSAL),
        ('llama', 'cuda', torch.float32, 64, False, CAUSAL),
        ('mistral', 'cuda', torch.bfloat16, 64, False, CAUSAL),
        ('mistral', 'cuda', torch.bfloat16, 65, False, VARLEN),  # padded to 128
        ('mistral', 'cuda', torch.float32, 65, False, None),
        ('mistral', 'cuda', torch.bfloat16, 100, True, VARLEN),
        ('llama', 'cuda', torch.bfloat16, 64, True, VARLEN),
        ('llama', 'cuda', torch.float32, 64, True, None),
        ('llama', 'cpu', torch.float32, 64, True, PER_SAMPLE),
        ('llama', 'cpu', torch.float32, 64, False, None),
        ('llama', 'mps', torch.bfloat16, 64, False, None),
    ],
)
def test_choice_of_the_attention_function(model_type, device, dtype, max_length, packed, expected):
    config = CONFIG_MAPPING[model_type](**({'sliding_window': 100} if model_type == 'mistral' else {}))
    assert choose_attention(config, 'sdpa', dtype, device, max_length, packed) == expected
    assert choose_attention(config, 'eager', dtype, device, max_length, packed) is None


def test_generation_needs_the_original_attention():
    llm = tiny('llama')
    attention, ids = PackedAttention(llm, CAUSAL), torch.ones(1, 5, dtype=torch.long)
    with pytest.raises(ModelError, match='generation_mode'):
        llm.generate(ids, max_new_tokens=3)
    with pytest.raises(ModelError, match='generation_mode'):  # without a mask
        llm(ids, past_key_values=llm(ids, use_cache=True).past_key_values)
    with attention.original_attention():
        assert llm.generate(ids, max_new_tokens=3).shape == (1, 8)


def test_a_mask_that_would_be_ignored_is_refused():
    llm = tiny('llama')
    ids, mask = torch.ones(1, 5, dtype=torch.long), torch.tensor([[0, 0, 1, 1, 1]])
    expected = llm(ids, attention_mask=mask, use_cache=False).logits
    attention = PackedAttention(llm, CAUSAL)
    with pytest.raises(ModelError, match='runner.model.generation_mode'):
        llm(ids, attention_mask=mask, use_cache=False)
    with pytest.raises(ModelError, match='generation_mode'):
        llm.model(ids, mask, use_cache=False)
    with attention.original_attention():
        same_logits = llm(ids, attention_mask=mask, use_cache=False).logits
    torch.testing.assert_close(same_logits, expected)


@pytest.mark.parametrize('positions', [8, 63, 64])
def test_the_parity_check_respects_the_context_length(positions):
    options = dict(n_positions=positions, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0)
    assert with_varlen_attention(tiny('gpt2', **options)) is not None


def drops_arguments(llm):
    """Make the layers of `llm` lose the sample boundaries."""

    def lose(module, args, kwargs):
        return args, {name: value for name, value in kwargs.items() if name != 'packed_cu_seqlens'}

    for layer in llm.model.layers:
        layer.register_forward_pre_hook(lose, with_kwargs=True)
    return llm


def sees_other_samples(llm):
    """Make the layers of `llm` attend with wrong sample boundaries."""

    def move(module, args, kwargs):
        if 'packed_cu_seqlens' in kwargs:
            kwargs['packed_cu_seqlens'] = kwargs['packed_cu_seqlens'][[0, -1]]
        return args, kwargs

    for layer in llm.model.layers:
        layer.register_forward_pre_hook(move, with_kwargs=True)
    return llm


def scales_gradients(llm):
    """Scale the gradients in the layers of `llm` under varlen attention."""

    def grow(module, args, kwargs, out):
        return out + (out - out.detach()) if 'packed_cu_seqlens' in kwargs else out

    for layer in llm.model.layers:
        layer.register_forward_hook(grow, with_kwargs=True)
    return llm


@pytest.mark.integration
@pytest.mark.parametrize(
    ('spoil', 'lora'),
    [
        (None, True),
        pytest.param(sees_other_samples, False, marks=pytest.mark.slow),
        pytest.param(None, False, marks=pytest.mark.slow),
        pytest.param(sees_other_samples, True, marks=pytest.mark.slow),
        pytest.param(scales_gradients, False, marks=pytest.mark.slow),
        pytest.param(scales_gradients, True, marks=pytest.mark.slow),
    ],
)
def test_the_parity_check_on_a_trained_model_in_bf16(spoil, lora, model_dir):
    """The bf16 logits of some tokens are noise, which differs between correct implementations."""
    llm = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16, attn_implementation='sdpa')
    if spoil:
        spoil(llm)
    if lora:
        llm = get_peft_model(llm, LoraConfig(r=8, target_modules='all-linear'))
    attention = install_packed_attention(llm, torch.bfloat16, CPU, 64, nullcontext())
    assert (attention is None) == (spoil is not None)


@pytest.mark.parametrize(
    'make',
    [
        lambda: tiny('llama', attention_dropout=0.1),
        lambda: tiny('llama', attn_implementation='eager'),
        lambda: tiny('gemma2', attn_implementation='eager', head_dim=8),
        lambda: drops_arguments(tiny('llama')),
        lambda: sees_other_samples(tiny('llama')),
        lambda: scales_gradients(tiny('llama')),
    ],
    ids=['dropout', 'eager', 'gemma2', 'drops arguments', 'sees other samples', 'scales gradients'],
)
def test_unsupported_models_keep_their_attention(make):
    llm = make()
    before = llm.config._attn_implementation
    assert with_varlen_attention(llm) is None
    assert llm.config._attn_implementation == before


@pytest.mark.parametrize('name', [CAUSAL, VARLEN])
def test_nothing_synchronizes_with_the_device_before_the_update(name):
    """On meta tensors: reading a value, which would synchronize with a GPU, fails."""
    meta = torch.device('meta')
    with meta:
        llm = get_peft_model(tiny('llama').requires_grad_(False), LoraConfig(target_modules='all-linear'))
    master_weights = MasterWeights(llm, torch.bfloat16)
    llm.bfloat16().train()
    fuse_lora(llm, torch.bfloat16)
    base = llm.get_base_model()
    lm_head, attention = LmHead(base.model, base.lm_head), PackedAttention(llm, name)
    optimizations = dict(master_weights=master_weights, lm_head=lm_head, attention=attention)
    task = SupervisedFineTuning(llm, torch.bfloat16, meta, **optimizations)
    trainer = make_trainer(task, torch.optim.AdamW(task.trained_parameters().values()))
    store, packed = pack_samples(LENGTHS if name == VARLEN else [[9], [13]])
    batch = collate(store, packed, pad_id=0)
    assert trainer.forward_backward([batch, batch], 40).is_meta
    assert trainer.strategy.reduce_and_clip(1.0).is_meta
    with task.attention.original_attention(), pytest.raises(RuntimeError):
        trainer.forward_backward([batch], 40)


@pytest.mark.parametrize('model_type', ['llama', 'qwen3'])
def test_layers_compile_once_for_any_samples(model_type):
    torch._dynamo.reset()
    counters.clear()
    with torch.device('meta'):
        llm = tiny(model_type, num_hidden_layers=3).bfloat16()
    attention = PackedAttention(llm, VARLEN)
    for layer in llm.model.layers:
        layer.compile(backend='eager', fullgraph=True)
    graphs = []
    for lengths in ([5, 11], [2] * 8, [1] * 20, [20, 3], [4] * 8):
        store, packed = pack_samples([lengths])
        batch = collate(store, packed, 0, padding=Padding(min_length=32, with_positions=True)).to(torch.device('meta'))
        kwargs = attention.model_kwargs(batch)
        llm.model(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False, **kwargs)
        graphs.append(counters['stats']['unique_graphs'])
    assert graphs == [1, 1, 1, 2, 2], 'one more for another max_seqlen, then none'


@pytest.mark.parametrize(
    ('lengths', 'concatenated', 'min_length', 'expected', 'max_seqlen'),
    [
        ([[5, 3], [4]], False, 1, [0, 5, 8, 12, 16], 8),
        ([[5, 3], [4]], True, 1, [0, 8, 12, 16], 8),
        ([[5, 3], [4]], False, 10, [0, 5, 8, 10, 14, 20], 8),
        ([[9]], False, 12, [0, 9, 12], 12),
        ([], False, 1, [0, 2], 2),
    ],
)
def test_cu_seqlens_and_max_seqlen(lengths, concatenated, min_length, expected, max_seqlen):
    store, packed = pack_samples(lengths)
    batch = collate(store, packed, 0, concatenated, padding=Padding(min_length=min_length, with_positions=True))
    total = expected[-1]
    assert batch.cu_seqlens.tolist() == expected + [total] * (17 - len(expected))
    assert batch.cu_seqlens.dtype == torch.int32 and batch.max_seqlen == max_seqlen
    assert batch.position_ids is not None and batch.input_ids.numel() == total


def test_cu_seqlens_beyond_16_have_a_power_of_two_of_entries():
    store, packed = pack_samples([[2] * 17])
    batch = collate(store, packed, 0)
    assert batch.cu_seqlens.shape == (33,) and batch.max_seqlen == 2


def test_padding_changes_no_count_and_no_target():
    store, packed = pack_samples(LENGTHS)
    unpadded, padded = (collate(store, packed, 0, padding=p) for p in (Padding(), Padding(multiple=64)))
    assert padded.input_ids.shape == (2, 64) and unpadded.input_ids.shape == (2, 19)
    assert (padded.num_targets, padded.num_tokens, padded.places) == (
        unpadded.num_targets,
        unpadded.num_tokens,
        unpadded.places,
    )
    assert torch.equal(
        padded.targets.flatten()[padded.target_indices], unpadded.targets.flatten()[unpadded.target_indices]
    )
