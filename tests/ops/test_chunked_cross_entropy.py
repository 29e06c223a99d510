"""Chunked cross-entropy has the loss and the gradients of cross-entropy over all logits."""

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from xtune.ops.chunked_cross_entropy import chunked_cross_entropy, loss_and_logit_grad, loss_and_logit_grad_to_compile
from xtune.tasks.lm_head import find_lm_head

TINY = dict(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    pad_token_id=0,
)


def model(name, **options):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **{**TINY, **options}))


@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize('trained', ['hidden', 'all'])
@pytest.mark.parametrize(('positions', 'chunk'), [(7, 4 * 11 * 3), (6, 4 * 11 * 3), (1, 2**28), (0, 2**28)])
def test_loss_and_gradients_are_those_of_full_logits(positions, chunk, trained, bias, monkeypatch):
    monkeypatch.setattr('xtune.ops.chunked_cross_entropy.CHUNK_BYTES', chunk)  # three positions
    torch.manual_seed(0)
    tensors = [torch.randn(positions, 5), torch.randn(11, 5), *([torch.randn(11)] if bias else [])]
    targets = torch.randint(0, 11, (positions,))
    results = []
    for plain in (True, False):
        own = [t.clone().requires_grad_(number == 0 or trained == 'all') for number, t in enumerate(tensors)]
        hidden, weight, offset = (*own, None)[:3]
        if plain:
            loss = F.cross_entropy(F.linear(hidden, weight, offset), targets, reduction='sum')
        else:
            loss = chunked_cross_entropy(hidden, weight, offset, targets)
        (loss / 3).backward()
        results.append([loss, *(t.grad for t in own if t.requires_grad)])
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_the_compiled_code_computes_the_same(dtype):
    torch.manual_seed(0)
    logits, targets = torch.randn(5, 11).mul(8).to(dtype), torch.tensor([0, 10, 3, 3, 7])
    (one, grad), (two, other) = (
        f(logits.clone(), targets) for f in (loss_and_logit_grad, loss_and_logit_grad_to_compile)
    )
    torch.testing.assert_close(one, two)
    torch.testing.assert_close(grad, other)
    expected = torch.softmax(logits.float(), 1) - torch.nn.functional.one_hot(targets, 11)
    torch.testing.assert_close(grad, expected.to(dtype))


def test_no_gradient_is_computed_without_grad_mode(monkeypatch):
    monkeypatch.setattr('xtune.ops.chunked_cross_entropy.loss_and_logit_grad', None)
    weight, bias = torch.randn(11, 5, requires_grad=True), torch.randn(11, requires_grad=True)
    with torch.no_grad():
        loss = chunked_cross_entropy(torch.randn(3, 5), weight, bias, torch.tensor([1, 2, 3]))
    assert loss.dtype == torch.float32 and not loss.requires_grad


@pytest.mark.parametrize(
    ('name', 'options', 'plain'),
    [
        ('llama', {}, True),
        ('qwen3', {}, True),
        ('gpt2', dict(n_embd=32, n_layer=2, n_head=4), True),
        ('gemma2', {}, False),  # caps its logits
        ('gemma2', dict(final_logit_softcapping=None), True),
        ('cohere', {}, False),  # scales them
        ('granite', dict(logits_scaling=8.0), False),
    ],
)
def test_models_whose_logits_are_more_than_one_matmul_keep_them(name, options, plain):
    assert (find_lm_head(model(name, **options)) is not None) == plain


def test_an_adapter_on_the_output_layer_keeps_the_logits():
    from peft import LoraConfig, get_peft_model

    assert find_lm_head(get_peft_model(model('llama'), LoraConfig(target_modules=['q_proj']))) is not None
    assert find_lm_head(get_peft_model(model('llama'), LoraConfig(target_modules=['q_proj', 'lm_head']))) is None
    modules_to_save = LoraConfig(target_modules=['q_proj'], modules_to_save=['lm_head'])
    assert find_lm_head(get_peft_model(model('llama'), modules_to_save)) is None
