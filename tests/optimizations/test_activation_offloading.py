"""Inputs of checkpointed layers, offloaded and copied back: the same gradients, and nothing of them stays."""

import copy
import gc
import weakref

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModelForCausalLM

from xtune.ops import compilation
from xtune.optimizations import activation_offloading
from xtune.optimizations.activation_checkpointing import ActivationCheckpointing, CheckpointPolicy
from xtune.optimizations.activation_offloading import OffloadedCheckpoint
from xtune.optimizations.layer_call import call_layer, checkpoint_layer
from xtune.utils.model_structure import layers_of

BACKEND = 'aot_eager_decomp_partition'


def offloaded(checkpointed=checkpoint_layer, min_bytes=0):
    """Return a layer call that offloads on a CPU too."""
    return OffloadedCheckpoint(checkpointed, min_bytes, ('cpu',))


def use(llm, layer_call):
    """Call every layer of `llm` by `layer_call`."""
    for layer in ActivationCheckpointing(llm).layers:
        layer.layer_call = layer_call


def gradients(llm, layer_call, device='cpu'):
    """Return the loss and the gradients of two forward and backward passes."""
    llm = copy.deepcopy(llm).to(device).train()
    use(llm, layer_call)
    ids = torch.arange(48, device=device).view(2, 24)
    results = []
    for number in range(2):
        loss = llm(input_ids=ids + number, labels=ids, use_cache=False).loss
        loss.backward()
        results.append(loss.detach())
    return [*results, *(p.grad for p in llm.parameters())]


@pytest.fixture(scope='module')
def llm(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32, attention_dropout=0.1)


def equal(llm, layer_call, device='cpu'):
    torch.manual_seed(0)
    expected = gradients(llm, checkpoint_layer, device)
    torch.manual_seed(0)
    return all(torch.equal(a, b) for a, b in zip(expected, gradients(llm, layer_call, device), strict=True))


def test_gradients_are_those_of_checkpointing(llm):
    assert equal(llm, offloaded())


class Recording:
    """Notes what layer calls save for the backward pass, and whether it is offloaded."""

    def __init__(self):
        self.saved, self.shapes = [], []

    def hooks(self, pack, unpack):
        def note(tensor):
            packed = pack(tensor)
            self.saved.append(weakref.ref(packed))
            if tensor.numel():  # torch 2.11 saves an empty one for each layer
                self.shapes.append((tuple(tensor.shape), packed is not tensor))
            return packed

        return saved_tensors_hooks(note, unpack)


@pytest.fixture
def recording(monkeypatch):
    one = Recording()
    monkeypatch.setattr(activation_offloading, 'saved_tensors_hooks', one.hooks)
    return one


@pytest.mark.parametrize('compiled', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_inputs_of_layers_are_offloaded_and_nothing_else(compiled, llm, recording):
    checkpointed = compilation.compiled(checkpoint_layer, BACKEND) if compiled else checkpoint_layer
    torch.manual_seed(0)
    expected = gradients(llm, checkpointed)
    torch.manual_seed(0)
    torch.testing.assert_close(gradients(llm, offloaded(checkpointed)), expected)
    assert [shape for shape, is_offloaded in recording.shapes if is_offloaded] == [
        (2, 24, 32)
    ] * 4  # 2 layers, 2 passes
    assert compiled == (len(recording.shapes) > 4)  # graphs save weights too
    gc.collect()
    alive = [saved() for saved in recording.saved if saved() is not None]
    assert all(isinstance(saved, torch.Tensor) for saved in alive)


def test_compiled_layers_share_one_offloaded_call(llm):
    layers = ActivationCheckpointing(copy.deepcopy(llm))
    layers.apply(CheckpointPolicy(2, offload=True))
    layers.compile(BACKEND)
    first, second = (layer.layer_call for layer in layers.layers)
    assert first is second and isinstance(first, OffloadedCheckpoint)
    assert layers.policy == CheckpointPolicy(2, offload=True)


@pytest.mark.parametrize(('min_bytes', 'is_offloaded'), [(1, True), (2**20, False)])
def test_small_tensors_are_not_offloaded(llm, recording, min_bytes, is_offloaded):
    gradients(llm, offloaded(min_bytes=min_bytes))
    assert {is_copied for _, is_copied in recording.shapes} == {is_offloaded}


def test_tensors_on_other_devices_are_not_offloaded(llm, recording):
    gradients(llm, OffloadedCheckpoint(checkpoint_layer, 0))
    assert {is_copied for _, is_copied in recording.shapes} == {False}


def test_the_layer_call_can_change_between_steps(llm):
    llm = copy.deepcopy(llm).train()
    layers, ids = ActivationCheckpointing(llm), torch.arange(24)[None]
    assert type(layers_of(llm)[0]).__name__ == 'LlamaDecoderLayer'
    assert ActivationCheckpointing(llm).layers == layers.layers
    grads = []
    for count in (0, 1, 2, 'offload', 2, 0):
        layers.apply(CheckpointPolicy.from_option(count))
        number = 2 if count == 'offload' else count
        assert layers.num_checkpointed == number == 2 - layers.num_plain
        if count == 'offload':
            use(llm, offloaded())
        llm.zero_grad()
        torch.manual_seed(0)
        llm(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        grads.append(llm.model.layers[0].mlp.up_proj.weight.grad.clone())
    assert all(torch.equal(grads[0], other) for other in grads)
    assert layers.layers[0].layer_call is call_layer
