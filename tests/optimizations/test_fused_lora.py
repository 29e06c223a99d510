"""Base and adapter in one operation: the outputs and gradients of peft's own layers, compiled or not, in every form of
a base."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from xtune.ops.nf4_dequant import dequantize, quantized_parts
from xtune.optimizations.activation_checkpointing import ActivationCheckpointing, CheckpointPolicy
from xtune.optimizations.fused_lora import fuse_lora, has_custom_functions

IDS = torch.arange(48).view(2, 24)
# A backend of torch.compile that takes the graphs apart as inductor does, and compiles no kernels.
BACKEND = 'aot_eager_decomp_partition'


def in_4_bits(linear, nested):
    import bitsandbytes

    new = bitsandbytes.nn.Linear4bit(
        linear.in_features, linear.out_features, linear.bias is not None, linear.weight.dtype, nested, 'nf4'
    )
    new.weight = bitsandbytes.nn.Params4bit(
        linear.weight.data, requires_grad=False, compress_statistics=nested, quant_type='nf4', module=new
    ).to('cpu')
    new.bias = linear.bias
    return new


@pytest.fixture
def make():
    """A function that returns a tiny Llama with LoRA: on a base in float32, or in 4 bits (nested scales or not)."""

    def build(base='float32', **lora):
        torch.manual_seed(0)
        sizes = dict(hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2)
        config = LlamaConfig(vocab_size=64, num_hidden_layers=2, attention_bias=True, initializer_range=0.1, **sizes)
        llm = LlamaForCausalLM(config)
        for name, linear in list(llm.model.named_modules()):
            if base != 'float32' and type(linear) is torch.nn.Linear:
                llm.model.set_submodule(name, in_4_bits(linear, base == 'nested'))
        llm.requires_grad_(False)
        settings = dict(r=4, lora_alpha=12, lora_dropout=0.0, target_modules='all-linear') | lora
        llm = get_peft_model(llm, LoraConfig(**settings), autocast_adapter_dtype=False).train()
        for name, parameter in llm.named_parameters():
            if 'lora_B' in name:
                torch.nn.init.normal_(parameter, std=0.1)
        return llm

    return build


def gradients(llm):
    torch.manual_seed(1)
    llm.zero_grad()
    loss = llm(input_ids=IDS, labels=IDS, use_cache=False).loss
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in llm.parameters() if p.requires_grad)]


def relative_error(found, wanted):
    return max(((a - b).norm() / b.norm()).item() for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize('dropout', [0.0, 0.3])
@pytest.mark.parametrize('base', ['float32', 'scales', 'nested'])
def test_loss_and_gradients_are_those_of_peft(base, dropout, make):
    llm = make(base, lora_dropout=dropout)
    wanted = gradients(llm)
    assert fuse_lora(llm, torch.float32) == 14
    assert relative_error(gradients(llm), wanted) < 1e-5
    assert not has_custom_functions(llm)


SLOW = pytest.mark.slow


@pytest.mark.integration
@pytest.mark.parametrize(
    ('base', 'count'),
    [('float32', 0), ('nested', 2), pytest.param('float32', 2, marks=SLOW), pytest.param('nested', 0, marks=SLOW)],
)
def test_compiled_layers_have_equal_gradients_and_do_not_recompute_the_last_matmul(base, count, make):
    llm = make(base)
    wanted = gradients(llm)
    fuse_lora(llm, torch.float32)
    layers = ActivationCheckpointing(llm)
    layers.apply(CheckpointPolicy(count))
    layers.compile(BACKEND, has_custom_functions(llm))
    assert relative_error(gradients(llm), wanted) < 1e-5
    with torch.profiler.profile() as profile:
        gradients(llm)
    matmuls = sum(event.name == 'xtune::lora_matmul_forward' for event in profile.events())
    assert matmuls == 14 + 6 * count  # 7 in each of two layers


def test_bf16_gradients_are_as_close_to_float32_as_those_of_peft(make):
    wanted = gradients(make())
    plain = make().bfloat16()
    fused = copy.deepcopy(plain)
    fuse_lora(fused, torch.bfloat16)
    assert relative_error(gradients(fused), wanted) < 1.2 * relative_error(gradients(plain), wanted) < 0.1


def test_little_is_saved_for_the_backward_pass(make):
    """The backward pass saves the input, tensors with r columns, and the weight as it is quantized."""

    def saved(llm):
        shapes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(t.shape) or t, lambda t: t):
            llm.base_model.model.model.layers[0].mlp.up_proj(torch.ones(3, 64, requires_grad=True))
        return shapes

    llm = make('nested')
    fuse_lora(llm, torch.float32)
    assert torch.Size([96, 64]) not in saved(llm)
    assert [tuple(s) for s in saved(llm) if s[:1] == (3,)] == [(3, 64), (3, 4)]


def test_unsupported_adapters_are_left_to_peft(make):
    dora = make(use_dora=True)
    assert fuse_lora(dora, torch.float32) == 0
    biased = make(lora_bias=True)
    assert fuse_lora(biased, torch.float32) == 0
    llm = make()
    fuse_lora(llm, torch.float32)
    x = torch.randn(2, 5, 64)
    layer = llm.base_model.model.model.layers[0].mlp.up_proj
    base = layer.base_layer(x)
    assert not torch.allclose(layer(x), base)
    with llm.disable_adapter():
        assert torch.equal(layer(x), base)
    trained = layer(x)
    llm.merge_adapter()
    torch.testing.assert_close(layer(x), trained, rtol=1e-4, atol=1e-5)
    llm.unmerge_adapter()
    torch.testing.assert_close(layer.eval()(x), trained, rtol=1e-4, atol=1e-5)


def test_layers_with_custom_functions_are_detected(make):
    llm = make('nested', target_modules=['q_proj'])
    fuse_lora(llm, torch.float32)
    assert has_custom_functions(llm)
    assert not has_custom_functions(make())


def test_a_trained_base_layer_is_not_treated_as_frozen(make):
    llm = make()
    layer = llm.base_model.model.model.layers[0].mlp.up_proj
    layer.base_layer.weight.requires_grad_(True)
    wanted = gradients(llm)
    fuse_lora(llm, torch.float32)
    assert not layer.base_is_matmul
    assert relative_error(gradients(llm), wanted) < 1e-5


@pytest.mark.parametrize('nested', [False, True])
def test_a_weight_is_dequantized_as_by_bitsandbytes(nested):
    from bitsandbytes.functional import dequantize_4bit

    layer = in_4_bits(torch.nn.Linear(64, 96), nested)
    found = dequantize(*quantized_parts(layer.weight), torch.bfloat16)
    assert found.dtype == torch.bfloat16 and found.shape == (96, 64)
    layer.weight.quant_state.dtype = torch.bfloat16
    assert torch.equal(found, dequantize_4bit(layer.weight.data, layer.weight.quant_state))


def test_the_operators_pass_opcheck():
    x, weight, low = torch.randn(5, 8, requires_grad=True), torch.randn(6, 8), torch.randn(5, 2)
    a, b = torch.randn(2, 8, requires_grad=True), torch.randn(6, 2, requires_grad=True)
    arguments = (x, [weight], [6, 8, 0, 0], '', None, low, a, b, 0.5)
    torch.library.opcheck(torch.ops.xtune.lora_matmul.default, arguments)
    gradient = torch.randn(5, 6), [weight], [6, 8, 0, 0], '', torch.randn(5, 2), torch.randn(2, 8)
    torch.library.opcheck(torch.ops.xtune.lora_matmul_grad_x.default, gradient)
