"""What lies between recomputed layers, put aside and taken back: the same gradients, and nothing of it stays."""

import copy
import gc
import weakref

import pytest
import torch
from transformers import AutoModelForCausalLM

from xtune.ops import compilation
from xtune.optimizations import activation_offloading
from xtune.optimizations.activation_checkpointing import ActivationCheckpointing, recompute, recompute_activations
from xtune.optimizations.activation_offloading import Offload

BACKEND = 'aot_eager_decomp_partition'


def gradients(llm, way, device='cpu'):
    """Return the loss and the gradients of two forward and backward passes."""
    llm = copy.deepcopy(llm).to(device).train()
    recompute_activations(llm, None, way)
    ids = torch.arange(48, device=device).view(2, 24)
    found = []
    for number in range(2):
        loss = llm(input_ids=ids + number, labels=ids, use_cache=False).loss
        loss.backward()
        found.append(loss.detach())
    return [*found, *(p.grad for p in llm.parameters())]


@pytest.fixture(scope='module')
def llm(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32, attention_dropout=0.1)


def equal(llm, way, device='cpu'):
    torch.manual_seed(0)
    plain = gradients(llm, recompute, device)
    torch.manual_seed(0)
    return all(torch.equal(a, b) for a, b in zip(plain, gradients(llm, way, device), strict=True))


def test_gradients_are_those_of_recomputation(llm):
    assert equal(llm, Offload(0, ('cpu',)))


@pytest.mark.parametrize('compiled', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_it_holds_what_lies_between_layers_and_nothing_else(compiled, llm):
    class Counting(Offload):
        def _pack(self, tensor):
            packed = super()._pack(tensor)
            held.append(weakref.ref(packed))
            if tensor.numel():  # torch 2.11 saves an empty one for each layer
                shapes.append((tuple(tensor.shape), packed is not tensor))
            return packed

    held, shapes = [], []
    torch.manual_seed(0)
    way, backend = Counting(0, ('cpu',)), BACKEND
    plain = gradients(llm, compilation.compiled(recompute, backend) if compiled else recompute)
    torch.manual_seed(0)
    found = gradients(llm, way.through(compilation.compiled(recompute, backend)) if compiled else way)
    torch.testing.assert_close(found, plain)
    assert [shape for shape, moved in shapes if moved] == [(2, 24, 32)] * 4  # two layers, two passes
    assert compiled == (len(shapes) > 4)  # graphs save weights too
    gc.collect()
    assert not any(isinstance(ref(), activation_offloading._Held) for ref in held)


def pack(way, tensor):
    way._between = {tensor.untyped_storage().data_ptr()}
    return way._pack(tensor)


def test_compiled_layers_know_of_each_other(llm):
    layers = ActivationCheckpointing(copy.deepcopy(llm))
    layers.set(2, Offload())
    layers.compile(BACKEND)
    first, second = (layer.way for layer in layers.layers)
    assert first is second and first._recompute is layers.ways.recompute


def test_small_tensors_and_other_devices_stay():
    tensor = torch.zeros(1024)
    assert pack(Offload(4097, ('cpu',)), tensor) is tensor
    assert pack(Offload(0), tensor) is tensor
    packed = pack(Offload(4096, ('cpu',)), tensor)
    assert isinstance(packed, activation_offloading._Held) and packed.take().data_ptr() != tensor.data_ptr()


def test_the_one_before_is_on_its_way_when_one_is_taken():
    way = Offload(0, ('cpu',))
    first, second = pack(way, torch.ones(2)), pack(way, torch.ones(2) * 2)
    assert way._unpack(second).tolist() == [2, 2]
    assert first._there is not None and way._unpack(first).tolist() == [1, 1] and first._there is None


def test_the_way_can_change_between_steps(llm):
    llm = copy.deepcopy(llm).train()
    layers, ids = ActivationCheckpointing(llm), torch.arange(24)[None]
    assert (
        type(llm.model.layers[0]).__name__ == 'LlamaDecoderLayer'
        and ActivationCheckpointing(llm).layers == layers.layers
    )
    found = []
    for count, way in ((0, recompute), (1, recompute), (2, Offload(0, ('cpu',))), (2, recompute), (0, recompute)):
        layers.set(count, way)
        assert layers.count == count == 2 - layers.kept
        llm.zero_grad()
        torch.manual_seed(0)
        llm(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        found.append(llm.model.layers[0].mlp.up_proj.weight.grad.clone())
    assert all(torch.equal(found[0], other) for other in found)
