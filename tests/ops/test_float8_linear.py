"""Linear layers in float8: products and gradients, and adapters on them, are those of bf16 but for the rounding."""

import copy
import weakref

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from xtune.errors import ModelError
from xtune.ops.float8_linear import Float8Config, Float8Linear, to_float8_base
from xtune.ops.float8_matmul import FLOAT8, public_scaled_matmul, scaled_matmul, to_float8


def row_scales_on_cpu():
    """Whether torch multiplies float8 matrices with one scale per row on a CPU: torch 2.11 only on GPUs."""
    left, right = to_float8(torch.randn(16, 16)), to_float8(torch.randn(16, 16))
    try:
        scaled_matmul(*left, right[0], right[1].reshape(1, -1), False)
    except RuntimeError:
        return False
    return True


needs_row_scales = pytest.mark.skipif(not row_scales_on_cpu(), reason='this torch has row scales only on GPUs')


def cosine(one, other):
    return torch.nn.functional.cosine_similarity(one.flatten().double(), other.flatten().double(), dim=0).item()


def error(found, right):
    return ((found.double() - right.double()).norm() / right.double().norm()).item()


def pair(outputs=48, inputs=64, bias=False):
    """Return a linear layer in bf16 and the same in float8."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(inputs, outputs, bias=bias).to(torch.bfloat16).requires_grad_(False)
    return linear, Float8Linear(linear)


def inputs(kind, shape=(6, 40, 64)):
    torch.manual_seed(1)
    x = torch.randn(shape)
    if kind == 'outliers':
        x[..., 3] *= 50
        x[0] *= 1e4
        x[1] *= 1e-6
    elif kind == 'zero rows':
        x[:, ::2] = 0
    elif kind == 'transposed':
        x = torch.randn(shape[1], shape[0], shape[2]).transpose(0, 1)
    return x.to(torch.bfloat16)


@pytest.mark.parametrize('scale', [1e-6, 1.0, 1e6])
def test_float8_rows_keep_the_largest_number_and_four_bits_of_each(scale):
    torch.manual_seed(0)
    values = torch.randn(20, 256) * scale
    values[3] *= 1000  # of no concern to the other rows
    rounded, scales = to_float8(values)
    assert rounded.dtype == FLOAT8 and scales.shape == (20, 1) and scales.dtype == torch.float32
    back, largest = rounded.float() * scales, values.abs().amax(1, keepdim=True)
    # Half of the last of three bits after the first; below the smallest normal number half of the smallest step.
    bound = torch.maximum(values.abs() / 16, largest / 448 * 2**-10)
    assert ((back - values).abs() <= bound * 1.0001).all()
    torch.testing.assert_close(back.abs().amax(1, keepdim=True), largest, rtol=1e-6, atol=0)


def test_zero_rows_stay_zero_and_non_finite_rows_become_nan():
    values = torch.zeros(4, 16)
    values[1, 2], values[2, 3] = torch.inf, torch.nan
    rounded, scales = to_float8(values)
    back = rounded.float() * scales
    assert (back[0] == 0).all() and (back[3] == 0).all() and scales.isfinite()[[0, 3]].all()
    assert back[1].isnan().any() and back[2].isnan().any()


@needs_row_scales
def test_the_private_and_the_public_matmul_agree():
    """If torch moves either of them, `scaled_matmul` has to follow."""
    assert hasattr(torch, '_scaled_mm')
    left, right = to_float8(torch.randn(5, 32)), to_float8(torch.randn(48, 32))
    arguments = (*left, right[0], right[1].reshape(1, -1), False)
    found = scaled_matmul(*arguments)
    assert found.dtype == torch.bfloat16 and found.shape == (5, 48)
    exact = (left[0].float() * left[1]) @ (right[0].float() * right[1]).T
    torch.testing.assert_close(found, exact.to(torch.bfloat16), rtol=2e-2, atol=1e-2)
    assert torch.equal(found, public_scaled_matmul(*arguments))


@needs_row_scales
@pytest.mark.parametrize('kind', ['random', 'outliers', 'zero rows', 'transposed'])
@pytest.mark.parametrize('bias', [False, True])
def test_outputs_and_gradients_are_close_to_those_of_float32(kind, bias):
    linear, layer = pair(bias=bias)
    x = inputs(kind).requires_grad_(True)
    exact = x.detach().float().requires_grad_(True)
    y, right = layer(x), linear.float()(exact)
    slope = inputs(kind, right.shape)
    y.backward(slope)
    right.backward(slope.float())
    assert y.dtype == x.grad.dtype == torch.bfloat16 and y.shape == right.shape
    for found, wanted in ((y, right), (x.grad, exact.grad)):
        assert error(found, wanted) < 0.04 and cosine(found, wanted) > 0.999
        for one, other in zip(found.flatten(0, 1), wanted.flatten(0, 1), strict=True):  # small rows too
            assert error(one, other) < 0.08 if other.any() else not one.any()


@needs_row_scales
def test_an_empty_input_and_one_row():
    _, layer = pair(bias=True)
    for shape in ((0, 64), (2, 0, 64), (1, 64), (64,)):
        x = torch.zeros(shape, dtype=torch.bfloat16, requires_grad=True)
        y = layer(x)
        y.sum().backward()
        assert y.shape == (*shape[:-1], 48) and x.grad.shape == shape


@needs_row_scales
def test_nothing_of_the_input_is_saved_for_the_backward_pass():
    _, layer = pair()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        layer(inputs('random').requires_grad_(True))
    assert {tensor.data_ptr() for tensor in kept} == {layer.columns_KN.data_ptr(), layer.scales_1K.data_ptr()}


@needs_row_scales
def test_a_layer_compiles_without_a_graph_break():
    _, layer = pair(bias=True)
    compiled = torch.compile(layer, backend='aot_eager', fullgraph=True)
    x = inputs('random')[0].requires_grad_(True)
    compiled(x).float().square().sum().backward()
    found, x.grad = x.grad, None
    layer(x).float().square().sum().backward()
    assert error(found, x.grad) < 1e-2


def test_dtypes_stay_when_a_model_is_cast_or_copied():
    linear, layer = pair(bias=True)
    cast = copy.deepcopy(layer).to(torch.float32).half().to('cpu')
    assert cast.rows_NK.dtype == cast.columns_KN.dtype == FLOAT8 and cast.scales_1N.dtype == torch.float32
    assert cast.bias.dtype == torch.float16
    assert torch.equal(cast.rows_NK.view(torch.uint8), layer.rows_NK.view(torch.uint8))
    assert layer.to('meta').rows_NK.is_meta
    assert cast.weight.dtype == torch.bfloat16 and error(cast.weight, linear.weight) < 0.04


@pytest.fixture(scope='module')
def smollm(model_dir):
    """The first two layers of SmolLM2, in bf16."""
    return AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16, num_hidden_layers=2)


def test_layers_of_a_base_are_replaced_and_the_rest_stays(smollm):
    model = copy.deepcopy(smollm)
    model.model.layers[0].mlp.gate = torch.nn.Linear(576, 16, bias=False)
    model.model.layers[0].mlp.odd = torch.nn.Linear(576, 20, bias=False)
    model.model.layers[1].self_attn.again = model.model.layers[1].self_attn.q_proj
    count, old = model.num_parameters(), weakref.ref(model.model.layers[0].mlp.up_proj)
    to_float8_base(model, Float8Config(skip=['gate', 'layers.1.mlp'], last=0))
    assert old() is None
    found = {name for name, module in model.named_modules() if isinstance(module, Float8Linear)}
    attention = {f'model.layers.{i}.self_attn.{k}_proj' for i in (0, 1) for k in 'qkvo'}
    assert found == attention | {f'model.layers.0.mlp.{name}_proj' for name in ('gate', 'up', 'down')}
    assert model.model.layers[1].self_attn.again is model.model.layers[1].self_attn.q_proj
    assert model.num_parameters() == count and model.dtype == torch.bfloat16
    assert type(model.lm_head) is torch.nn.Linear and model.lm_head.weight is model.model.embed_tokens.weight


def gradients(model, ids):
    model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules='all-linear', init_lora_weights=False))
    own = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            drawn = torch.randn(parameter.shape, generator=own) * (0.02 if 'lora_A' in name else 0.002)
            parameter.data = drawn.to(torch.bfloat16)
    logits = model(input_ids=ids, logits_to_keep=9).logits  # few: the output layer is the slowest here
    loss = torch.nn.functional.cross_entropy(logits[0, :-1].float(), ids[0, -8:])
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@needs_row_scales
def test_adapter_gradients_have_the_direction_of_those_on_bf16(smollm, tokenizer):
    ids = tokenizer('The sun counts rivers because seven tokens were never green, said the child.', return_tensors='pt')
    loss, right = gradients(copy.deepcopy(smollm), ids.input_ids)
    model = copy.deepcopy(smollm)
    to_float8_base(model, Float8Config(last=0))
    other_loss, found = gradients(model, ids.input_ids)
    assert other_loss == pytest.approx(loss, rel=0.03) and found.keys() == right.keys()
    assert cosine(*(torch.cat([g[name].flatten() for name in right]) for g in (found, right))) > 0.99
    assert min(cosine(found[name], right[name]) for name in right) > 0.95


def test_the_last_layers_stay_in_bf16(smollm):
    for last, left in ((1, 'model.layers.0.'), (0, 'model.layers.')):
        model = copy.deepcopy(smollm)
        to_float8_base(model, Float8Config(last=last))
        found = [name for name, module in model.named_modules() if isinstance(module, Float8Linear)]
        assert len(found) == 14 - 7 * last and all(name.startswith(left) for name in found)


def test_bases_without_float8_layers_are_refused(tiny_model, smollm):
    nf4 = BitsAndBytesConfig(load_in_4bit=True)
    with pytest.raises(ModelError, match='quantization = None'):
        to_float8_base(AutoModelForCausalLM.from_pretrained(tiny_model, quantization_config=nf4), Float8Config())
    with pytest.raises(ModelError, match=r"LlamaForCausalLM.*skip=\['layers'\]"):
        to_float8_base(smollm, Float8Config(skip=['layers']))
    with pytest.raises(ModelError, match="'downproj'.*`down_proj`"):
        to_float8_base(smollm, Float8Config(skip=['downproj']))
    with pytest.raises(ModelError, match='quantization.last=2'):
        to_float8_base(smollm, Float8Config(last=2))
