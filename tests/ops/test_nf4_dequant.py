"""4-bit weights on CPUs for which bitsandbytes has an inference format, which has no gradients."""

import bitsandbytes
import pytest
import torch

from xtune.config.load import load
from xtune.config.wire import wire
from xtune.engine.prepare_model import build_llm
from xtune.ops.nf4_dequant import (
    disable_cpu_inference_format,
    disable_cpu_inference_format_of_odd_shapes,
    quantized_parts,
)


def linear(rows, width):
    torch.manual_seed(0)
    layer = bitsandbytes.nn.Linear4bit(width, rows, bias=False, compute_dtype=torch.float32, quant_type='nf4')
    layer.weight = bitsandbytes.nn.Params4bit(torch.randn(rows, width), requires_grad=False, module=layer).to('cpu')
    assert hasattr(layer, 'support_avx512bf16_for_cpu'), 'bitsandbytes has renamed its switch of the inference format'
    layer.support_avx512bf16_for_cpu = True
    return layer


def test_gradients_exist_after_a_call_without_gradients():
    layer, x = linear(64, 128), torch.randn(3, 128, requires_grad=True)
    (expected,) = torch.autograd.grad(layer(x).square().sum(), x)
    disable_cpu_inference_format(torch.nn.Sequential(layer))
    with torch.no_grad():
        layer.eval()(x.detach())
    assert quantized_parts(layer.weight) is not None
    (found,) = torch.autograd.grad(layer.train()(x).square().sum(), x)
    torch.testing.assert_close(found, expected)


def test_a_loaded_base_does_not_use_the_inference_format(make_config, monkeypatch):
    monkeypatch.setattr('bitsandbytes.nn.modules.has_avx512bf16', lambda: True)  # as on such a CPU
    llm, _ = build_llm(wire(load(make_config('qlora'))).model, torch.device('cpu'))
    layers = [layer for layer in llm.modules() if isinstance(layer, bitsandbytes.nn.Linear4bit)]
    assert layers and not any(layer.support_avx512bf16_for_cpu for layer in layers)


@pytest.mark.parametrize(('rows', 'width', 'fits'), [(64, 128, True), (48, 128, False), (64, 96, False)])
def test_shapes_that_the_inference_format_cannot_represent_keep_the_usual_one(rows, width, fits):
    layer = linear(rows, width)
    disable_cpu_inference_format_of_odd_shapes(torch.nn.Sequential(layer))
    assert layer.support_avx512bf16_for_cpu is fits
    if not fits:
        with torch.no_grad():
            assert layer.eval()(torch.ones(1, width)).isfinite().all()
