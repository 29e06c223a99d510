"""On a GPU: base and adapter in one operation, compiled by inductor, against plain layers in float32."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from xtune.ops.nf4_dequant import dequantize_by_triton, quantized_parts
from xtune.optimizations.activation_checkpointing import ActivationCheckpointing, CheckpointPolicy
from xtune.optimizations.fused_lora import fuse_lora, has_custom_functions

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')]


def in_4_bits(llm, folder):
    llm.save_pretrained(folder)
    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype='bfloat16'
    )
    return LlamaForCausalLM.from_pretrained(
        folder, quantization_config=settings, dtype=torch.bfloat16, device_map={'': 'cuda'}
    )


def adapted(llm):
    torch.manual_seed(1)
    llm.requires_grad_(False)
    llm = get_peft_model(llm, LoraConfig(r=16, target_modules='all-linear'), autocast_adapter_dtype=False).train()
    for name, parameter in llm.named_parameters():
        if 'lora_B' in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return llm.to('cuda')


def gradients(llm):
    ids = torch.arange(512, device='cuda').view(2, 256) % 500
    llm.zero_grad()
    llm(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return torch.cat([p.grad.float().flatten() for p in llm.parameters() if p.requires_grad])


def unquantized(llm):
    """A copy in float32 of a base in 4 bits."""
    from bitsandbytes.functional import dequantize_4bit

    for name, layer in list(llm.named_modules()):
        if type(layer).__name__ == 'Linear4bit':
            new = torch.nn.Linear(layer.in_features, layer.out_features, bias=False, device='cuda')
            new.weight.data = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
            llm.set_submodule(name, new)
    for parameter in llm.parameters():  # `float` is refused for what was quantized
        parameter.data = parameter.data.float()
    return llm


@pytest.mark.parametrize('count', [0, 2], ids=['kept', 'recomputed'])
@pytest.mark.parametrize('base', ['bf16', 'nf4'])
def test_gradients_are_those_of_float32(base, count, tmp_path):
    torch.manual_seed(0)
    sizes = dict(hidden_size=256, intermediate_size=512, num_attention_heads=4, num_key_value_heads=2)
    llm = LlamaForCausalLM(LlamaConfig(vocab_size=512, num_hidden_layers=2, initializer_range=0.05, **sizes))
    llm = in_4_bits(llm, tmp_path) if base == 'nf4' else llm.bfloat16().cuda()
    exact = gradients(adapted(unquantized(copy.deepcopy(llm))))
    fused = adapted(llm).bfloat16()
    assert fuse_lora(fused, torch.bfloat16) == 14 and not has_custom_functions(fused)
    layers = ActivationCheckpointing(fused)
    layers.apply(CheckpointPolicy(count))
    layers.compile()
    assert torch.nn.functional.cosine_similarity(gradients(fused), exact, dim=0) > 0.999


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32])
@pytest.mark.parametrize('kind', ['nf4', 'fp4'])
@pytest.mark.parametrize('nested', [False, True])
def test_the_kernel_dequantizes_as_bitsandbytes(nested, kind, dtype):
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    values = torch.randn(328, 520, device='cuda', dtype=dtype)
    weight = torch.nn.Parameter(torch.empty(0), requires_grad=False)
    weight.data, weight.quant_state = quantize_4bit(values, compress_statistics=nested, quant_type=kind)
    parts, layout, found_kind = quantized_parts(weight)
    assert found_kind == kind
    wanted = dequantize_4bit(weight.data, weight.quant_state)
    torch.testing.assert_close(dequantize_by_triton(parts, layout, dtype), wanted, rtol=2**-8, atol=0)
