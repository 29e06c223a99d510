"""The count of live bytes: exact for computations done by hand, and the same with real and fake tensors."""

import gc

import pytest
import torch

from xtune.planning.live_bytes import LiveBytes
from xtune.planning.phase_meters import fake_tensors


def test_storages_are_counted_once_until_they_are_freed():
    with LiveBytes(unit=1) as live:
        first = torch.zeros(1000)
        view = first[:10]
        assert live.allocated == live.peak == 4000
        del first
        assert live.allocated == 4000  # the view keeps it
        second = view + 1
        del view
        assert live.allocated == 40 and live.peak == 4040
        second.add_(1)
        assert live.allocated == 40
        del second
        assert live.allocated == 0


def test_bytes_are_rounded_up_like_in_the_cuda_allocator():
    with LiveBytes() as live:
        kept = [torch.zeros(1), torch.zeros(128), torch.zeros(129)]
        assert live.allocated == 512 + 512 + 1024 and kept


def test_the_peak_is_in_the_backward_pass():
    weight = torch.ones(1000, requires_grad=True)
    with LiveBytes(unit=1) as live:
        middle = weight.exp()  # its output is saved for the backward pass, and that of the product is not
        loss = (middle * middle).sum()
        assert live.allocated == 4000 + 4 and live.peak == 8000 + 4
        del middle
        loss.backward()
        assert weight.grad.shape == (1000,) and live.peak >= 12_000
        weight.grad = None
        del loss
        assert live.allocated == 0


def train(layers):
    model = torch.nn.Sequential(*[layer for _ in range(layers) for layer in (torch.nn.Linear(64, 64), torch.nn.GELU())])
    optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
    for _ in range(2):
        loss = model(torch.ones(32, 64)).square().sum()
        loss.backward()
        assert loss.isfinite().item() and torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]) > 0
        optimizer.step()
        optimizer.zero_grad()


def test_fake_tensors_take_as_many_bytes_as_real_ones():
    with LiveBytes() as live:
        train(3)
    gc.collect()
    with fake_tensors() as fake:
        train(3)
    assert fake.peak == pytest.approx(live.peak, rel=0.01) and fake.peak > 3 * 64 * 64 * 4 * 4


def test_fake_tensors_are_equal_if_the_same_type_of_operation_wrote_them():
    with fake_tensors():
        a = torch.ones(4, 4)
        assert torch.equal(a @ a, (a @ a).view(4, 4)) and not torch.equal(a @ a, (a @ a).tanh())
        assert not torch.equal(a @ a, (a @ a).mul_(2))


def test_cached_lookup_tables_have_real_values():
    import bitsandbytes.functional

    bitsandbytes.functional.name2qmap.clear()
    with fake_tensors():
        bitsandbytes.functional.quantize_4bit(torch.ones(64, 64), compress_statistics=True, quant_type='nf4')
    packed, state = bitsandbytes.functional.quantize_4bit(torch.ones(64, 64), compress_statistics=True)
    assert bitsandbytes.functional.dequantize_4bit(packed, state).sum().item() == 64 * 64


def test_4_bit_matmuls_count_the_dequantized_weight():
    import bitsandbytes
    from bitsandbytes.functional import quantize_4bit

    with fake_tensors() as live:
        packed, state = quantize_4bit(torch.ones(1024, 512, dtype=torch.bfloat16), quant_type='nf4')
        assert packed.untyped_storage().nbytes() == 1024 * 512 // 2
        inputs = torch.ones(8, 512, dtype=torch.bfloat16, requires_grad=True)
        live.reset_peak()
        before = live.allocated
        out = bitsandbytes.matmul_4bit(inputs, packed, state)
        assert live.peak - before >= 1024 * 512 * 2 and live.allocated - before == out.untyped_storage().nbytes()
