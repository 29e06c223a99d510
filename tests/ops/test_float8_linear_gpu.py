"""Float8 as a GPU multiplies it: run with `-m gpu`."""

import copy
import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from xtune.methods.float8_checks import device_problem
from xtune.ops.float8_linear import Float8Config, Float8Linear, to_float8_base
from xtune.ops.float8_matmul import public_scaled_matmul, scaled_matmul, to_float8
from xtune.utils.model_structure import layers_of

CUDA = torch.device('cuda')
MISSING = device_problem(CUDA if torch.cuda.is_available() else torch.device('cpu'))
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(MISSING is not None, reason=f'needs {MISSING}')]


def error(found, right):
    return ((found.double() - right.double()).norm() / right.double().norm()).item()


@pytest.mark.parametrize('fast', [True, False])
@pytest.mark.parametrize('shape', [(0, 48, 64), (1, 48, 64), (5, 16, 16), (4000, 576, 1536), (512, 1024, 14336)])
def test_the_matmul_is_that_of_the_rounded_numbers(shape, fast):
    rows, outputs, inputs = shape
    torch.manual_seed(0)
    left, right = (to_float8(torch.randn(count, inputs, device=CUDA)) for count in (rows, outputs))
    arguments = (*left, right[0], right[1].reshape(1, -1), fast)
    found = scaled_matmul(*arguments)
    assert found.dtype == torch.bfloat16 and found.shape == (rows, outputs)
    if rows:
        exact = (left[0].double() * left[1]) @ (right[0].double() * right[1]).T
        assert error(found, exact) < (2e-2 if fast else 4e-3)  # rounding to bf16 alone: 1.7e-3
        assert error(public_scaled_matmul(*arguments), found) < 5e-3


def step(layer, x, slope):
    x = x.clone().requires_grad_(True)
    y = layer(x)
    y.backward(slope)
    return y, x.grad


def test_a_compiled_layer_equals_the_eager_layer_and_is_close_to_bf16():
    torch.manual_seed(0)
    linear = torch.nn.Linear(576, 1536, device=CUDA, dtype=torch.bfloat16).requires_grad_(False)
    layer = Float8Linear(linear)
    x = torch.randn(4, 100, 576, device=CUDA, dtype=torch.bfloat16)
    slope = torch.randn(4, 100, 1536, device=CUDA, dtype=torch.bfloat16)
    plain, bf16 = step(layer, x, slope), step(linear, x, slope)
    compiled = step(torch.compile(layer, fullgraph=True), x, slope)
    for one, other, right in zip(plain, compiled, bf16, strict=True):
        assert error(one, right) < 0.04 and error(other, right) < 0.04 and error(other, one) < 0.01


@pytest.fixture
def smollm(model_dir):
    """The first four layers of SmolLM2, in bf16."""
    return AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16, num_hidden_layers=4, device_map='cuda')


def test_replacing_the_base_needs_memory_for_one_more_layer(smollm):
    layer = 2 * sum(p.numel() for p in smollm.model.layers[0].parameters())
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    to_float8_base(smollm, Float8Config())
    assert torch.cuda.max_memory_allocated() < before + layer
    assert torch.cuda.memory_allocated() < before * 1.02


def test_layers_with_an_adapter_compile_without_a_break(smollm):
    ids = torch.arange(300, 428, device=CUDA).reshape(2, 64)

    def losses(compiled):
        model = copy.deepcopy(smollm)
        to_float8_base(model, Float8Config())
        torch.manual_seed(0)
        model = get_peft_model(model, LoraConfig(r=16, target_modules='all-linear'))
        own = [p for p in model.parameters() if p.requires_grad]
        for parameter in own:
            parameter.data = parameter.data.to(torch.bfloat16)
        for layer in layers_of(model) if compiled else ():
            layer.compile(fullgraph=True)
        optimizer = torch.optim.AdamW(own, lr=1e-3)
        found = []
        for _ in range(5):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            found.append(loss.item())
        return found

    plain, compiled = losses(False), losses(True)
    assert plain[-1] < plain[0] and compiled == pytest.approx(plain, rel=2e-2)


@pytest.mark.parametrize(
    'options', [{}, {'speed.compile': True}, {'activation_checkpointing': 'none'}, {'speed.master_weights': False}]
)
def test_a_run_resumes_and_learns_as_on_bf16(options, make_config, xtune, tmp_path):
    def losses(name):
        lines = (tmp_path / name / 'metrics.jsonl').read_text().splitlines()
        return [row['loss'] for row in map(json.loads, lines) if 'loss' in row]

    options = {'chat_samples.every_steps': 3, 'lora.lora_dropout': 0.0, 'optimizer.lr': 1e-2, **options}
    config = make_config('fp8_lora', 'float8', **options)
    code, out, err = xtune('train', config)
    assert code == 0 and 'base Float8 (7 linear layers)' in out, err  # of two layers the last stays in bf16
    whole = losses('float8')
    (tmp_path / 'float8' / 'epoch_2.pth').unlink()
    code, out, err = xtune('train', config, '--resume')
    assert code == 0 and 'resuming from' in out, err
    assert losses('float8') == pytest.approx(whole, rel=2e-3)
    code, _, err = xtune('train', make_config('lora', 'bf16', **options))
    assert code == 0, err
    assert whole == pytest.approx(losses('bf16'), rel=1e-2)
