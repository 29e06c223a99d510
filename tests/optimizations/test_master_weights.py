"""bf16 weights with float32 master weights: small updates and gradients of many micro-batches are not rounded away."""

import json

import pytest
import torch

from xtune.optimizations.master_weights import MasterWeights


def test_updates_too_small_for_bf16_accumulate():
    layer = torch.nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(1.0)
    masters = MasterWeights(layer, torch.bfloat16)
    assert layer.weight.dtype == torch.bfloat16
    optimizer = torch.optim.SGD([masters.of(layer.weight)], lr=1e-4)
    for _ in range(100):  # bf16 has no number between 1 and 1 - 2^-9
        layer(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        masters.write_back()
    assert masters.of(layer.weight).item() == pytest.approx(0.99, rel=1e-5)
    assert layer.weight.item() == pytest.approx(0.99, abs=2**-9)


def test_gradients_of_micro_batches_are_accumulated_in_float32():
    layer = torch.nn.Linear(1, 1, bias=False)
    masters = MasterWeights(layer, torch.bfloat16)
    for _ in range(300):  # in bf16 the sum would stop at 256
        layer(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
        assert layer.weight.grad is None
    assert masters.of(layer.weight).grad.item() == 300


def test_frozen_and_tied_parameters_stay_so():
    llm = torch.nn.ModuleDict(dict(a=torch.nn.Linear(2, 2, bias=False), b=torch.nn.Linear(2, 2, bias=False)))
    llm['c'] = torch.nn.Linear(2, 2)
    llm['c'].requires_grad_(False)
    llm['b'].weight = llm['a'].weight
    masters = MasterWeights(llm, torch.bfloat16)
    assert llm['b'].weight is llm['a'].weight and llm['c'].weight.dtype == torch.float32
    assert masters.of(llm['a'].weight).dtype == torch.float32


def figures(work_dir):
    rows = [json.loads(line) for line in (work_dir / 'metrics.jsonl').read_text().splitlines()]
    return {row['step']: (row['loss'], row['grad_norm']) for row in rows if 'loss' in row}


@pytest.mark.parametrize(
    'method', ['lora', *(pytest.param(method, marks=pytest.mark.slow) for method in ('qlora', 'full'))]
)
def test_a_bf16_run_saves_master_weights_and_resumes_bit_exactly(method, make_config, xtune, tmp_path):
    options = {'precision': 'bf16'}
    options |= {} if method == 'full' else {'lora.lora_dropout': 0.0}
    code, out, err = xtune('train', make_config(method, 'whole', **options))
    assert code == 0, err
    assert 'float32 master weights, chunked cross-entropy, varlen attention' in out
    whole = figures(tmp_path / 'whole')
    first = tmp_path / 'whole' / 'epoch_1.pth'
    saved = torch.load(first, weights_only=True)['state_dict']
    assert all(tensor.dtype == torch.float32 for tensor in saved.values())
    assert any((tensor != tensor.bfloat16().float()).any() for tensor in saved.values())
    code, _, err = xtune(
        'train', make_config(method, 'more', **options), '--resume', tmp_path / 'whole' / 'epoch_1.pth'
    )
    assert code == 0, err
    again = figures(tmp_path / 'more')
    assert again == {step: values for step, values in whole.items() if step > 2}

    slow = {**options, 'speed.master_weights': False, 'speed.chunked_cross_entropy': False}
    code, out, err = xtune('train', make_config(method, 'autocast', **slow))
    assert code == 0 and 'master weights' not in out, err
    for step, (loss, norm) in figures(tmp_path / 'autocast').items():
        assert whole[step] == (pytest.approx(loss, rel=5e-3), pytest.approx(norm, rel=0.1))
