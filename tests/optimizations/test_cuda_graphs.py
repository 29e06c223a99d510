"""Layers that are recorded and run again: the same training as without, in every shape and kind of model. Here what is
recorded is a function that is called again; `-m gpu` has the CUDA graphs."""

import gc
import weakref
from contextlib import nullcontext

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

from xtune.data.batches import MicroBatch
from xtune.engine.nan_report import NonFiniteStep
from xtune.engine.optimizer import StepOptimizer
from xtune.optimizations.activation_checkpointing import ActivationCheckpointing
from xtune.optimizations.cuda_graphs.host_bound import STEPS
from xtune.optimizations.cuda_graphs.partition import Chain
from xtune.optimizations.cuda_graphs.pytree import Strange, form
from xtune.optimizations.cuda_graphs.runner import SHAPES, CudaGraphRunner
from xtune.optimizations.master_weights import MasterWeights
from xtune.tasks.lm_head import find_lm_head
from xtune.tasks.sft import SupervisedFineTuning

CPU = torch.device('cpu')
SIZES = dict(vocab_size=50, hidden_size=32, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2)


class Again:
    """Calls a function again, and counts how often."""

    def __init__(self):
        self.recorded = self.calls = 0

    def trial(self, strict):
        return nullcontext()

    def idle(self):
        return 2**30

    def renew(self):
        pass

    def __call__(self, function):
        made = function()
        self.recorded += 1

        def again():
            self.calls += 1
            with torch.enable_grad():
                found = function()
            for place, new in zip(made, found, strict=True):
                if place is not None:
                    place.data.copy_(new)

        return made, again


class Unhurried(CudaGraphRunner):
    """Takes steps for ones that waited so long for the GPU, whatever else this machine does meanwhile."""

    waited = 0.0

    def note(self, waited):
        assert 0 <= waited <= 2
        super().note(self.waited)


def llama(layers=3, **more):
    return LlamaForCausalLM(LlamaConfig(**SIZES, num_hidden_layers=layers, **more))


def gemma():
    kinds = ['sliding_attention', 'sliding_attention', 'full_attention', 'sliding_attention']
    sizes = SIZES | dict(head_dim=8, sliding_window=8)
    return Gemma3ForCausalLM(Gemma3TextConfig(**sizes, num_hidden_layers=4, layer_types=kinds))


def batch(width=16, rows=2):
    return MicroBatch.unpacked(*(torch.randint(1, 50, (rows, width)) for _ in range(2)))


class Training:
    """A tiny model in training, with or without graphs."""

    def __init__(self, recorder=None, make=llama, lora=True, recompute=0):
        torch.manual_seed(0)
        llm = make().train()
        if lora:
            llm.requires_grad_(False)
            llm = get_peft_model(llm, LoraConfig(r=4, lora_dropout=0.1, target_modules='all-linear'))
        self.layers = ActivationCheckpointing(llm)
        self.layers.set(recompute)
        masters = MasterWeights(llm, torch.bfloat16)
        llm.to(torch.bfloat16)
        self.graphs = Unhurried(self.layers.layers, CPU, recorder, lambda _: True) if recorder else None
        self.task = SupervisedFineTuning(
            llm, torch.bfloat16, masters=masters, head=find_lm_head(llm), layers=self.layers, graphs=self.graphs
        )
        self.parameters = list(self.task.trained_parameters().values())
        self.optimizer = StepOptimizer(torch.optim.AdamW(self.parameters, lr=1e-2), 1.0)
        self.random = torch.manual_seed(1).get_state()

    def step(self, *widths):
        torch.set_rng_state(self.random)
        out = self.task.train_step([batch(width) for width in widths], self.optimizer)
        self.random = torch.get_rng_state()
        return out['loss'], out['grad_norm']


def same(plain, graphed):
    return all(torch.equal(a, b) for a, b in zip(plain.parameters, graphed.parameters, strict=True))


@pytest.mark.parametrize('lora', [True, False])
@pytest.mark.parametrize(('make', 'pieces'), [(llama, 1), (gemma, 3)])
def test_training_is_the_same(make, pieces, lora):
    recorder = Again()
    plain, graphed = Training(None, make, lora), Training(recorder, make, lora)
    for _ in range(STEPS + 4):
        assert plain.step(16, 16) == graphed.step(16, 16)
    assert same(plain, graphed)
    # a forward and a backward pass of each piece, in the two micro-batches of each of three steps
    assert (recorder.recorded, recorder.calls) == (2 * pieces, 2 * pieces * 2 * 3)


def test_each_shape_has_its_own_and_there_are_few():
    plain, graphed = Training(), Training(Again())
    for _ in range(STEPS + 3):
        assert plain.step(16, 24) == graphed.step(16, 24)
    assert len(graphed.graphs) == 2 and same(plain, graphed)
    for _ in range(STEPS + 1):
        graphed.step(*range(2, 2 + SHAPES))  # all at once
    assert len(graphed.graphs) == SHAPES
    for width in range(2, 2 + SHAPES):
        for _ in range(STEPS + 1):
            graphed.step(width)
    assert len(graphed.graphs) == SHAPES


def test_a_gpu_that_is_busy_needs_none():
    recorder = Again()
    graphed = Training(recorder)
    graphed.graphs.waited = 0.1
    for _ in range(STEPS + 3):
        graphed.step(16)
    assert not recorder.recorded


def test_a_second_forward_pass_before_the_backward_pass_leaves_the_first_alone():
    plain, graphed = Training(), Training(Again())
    for _ in range(STEPS + 2):
        assert plain.step(16) == graphed.step(16)
    recorder = graphed.graphs._recorder
    for training in (plain, graphed):
        calls = recorder.calls
        torch.set_rng_state(training.random)
        with training.graphs.on() if training.graphs else nullcontext():
            losses = [training.task(batch(16)) for _ in range(2)]
            sum(losses).backward()
    assert recorder.calls == calls + 2
    pairs = zip(plain.parameters, graphed.parameters, strict=True)
    assert all(torch.allclose(a.grad, b.grad, rtol=1e-2, atol=1e-4) for a, b in pairs)


def test_layers_that_are_called_in_another_way_are_recorded_again():
    recorder = Again()
    plain, graphed = Training(), Training(recorder)
    for kept in (0, 2):
        for training in (plain, graphed):
            training.layers.set(kept)
        for _ in range(STEPS + 2):
            assert plain.step(16) == graphed.step(16)
    assert recorder.recorded == 4 and same(plain, graphed)


def test_what_cannot_be_recorded_goes_on_as_it_was(capsys):
    class Fails(Again):
        def __call__(self, function):
            function()
            raise RuntimeError('operation not permitted when stream is capturing\nmore')

    plain, graphed = Training(), Training(Fails())
    for _ in range(STEPS + 3):
        assert plain.step(16) == graphed.step(16)
    assert same(plain, graphed) and not len(graphed.graphs)
    assert capsys.readouterr().out.count('cannot run as CUDA graphs (operation not permitted when stream is') == 1


def test_nothing_is_recorded_after_what_failed(capsys):
    class Fails(Again):
        def __call__(self, function):
            self.recorded += 1
            raise torch.OutOfMemoryError('CUDA out of memory')

    graphed = Training(Fails())
    for _ in range(STEPS + 2):
        graphed.step(16, 24)
    assert graphed.graphs._recorder.recorded == 1 and not graphed.graphs.idle
    assert 'run as CUDA graphs' in capsys.readouterr().out.partition('cannot ')[2]


def test_ways_that_cannot_be_recorded_are_let_be():
    recorder = Again()
    graphed = Training(recorder)
    graphed.graphs._takes = lambda way: way is not graphed.layers.ways.recompute
    graphed.layers.set(1)
    for _ in range(STEPS + 2):
        graphed.step(16)
    assert not recorder.recorded


def test_memory_that_runs_out_costs_the_graphs_first(monkeypatch, capsys):
    plain, graphed = Training(), Training(Again())
    for _ in range(STEPS + 2):
        assert plain.step(16) == graphed.step(16)
    assert len(graphed.graphs)
    add, pieces = graphed.task.add_gradients, [weakref.ref(piece) for piece in graphed.graphs._pieces()]

    def fail(*arguments):
        gc.collect()
        found = add(*arguments)
        if any(piece() is not None for piece in pieces):  # the memory of graphs is free when none of them is left
            raise torch.OutOfMemoryError('CUDA out of memory')
        return found

    monkeypatch.setattr(graphed.task, 'add_gradients', fail)
    assert plain.step(16) == graphed.step(16)
    assert not len(graphed.graphs) and graphed.layers.kept == 3 and same(plain, graphed)
    assert 'no CUDA graphs' in capsys.readouterr().out


def test_validation_and_samples_get_the_memory(monkeypatch):
    graphed = Training(Again())
    for _ in range(STEPS + 2):
        graphed.step(16)
    with graphed.task.whole_rows():
        assert not len(graphed.graphs) and not graphed.graphs.idle
    for _ in range(STEPS + 2):
        graphed.step(16)
    assert len(graphed.graphs)
    graphed.task.llm.eval()
    forward = graphed.task.forward

    def fail(batch):
        if len(graphed.graphs):
            raise torch.OutOfMemoryError('CUDA out of memory')
        return forward(batch)

    monkeypatch.setattr(graphed.task, 'forward', fail)
    data = [batch(16)]
    assert graphed.task.val_step(data)[0] == pytest.approx(forward(data[0]).item(), 1e-5) and not len(graphed.graphs)


def test_layers_before_the_first_that_trains_are_recorded_too():
    trainings = [Training(recorder, gemma, lora=False) for recorder in (None, Again())]
    for training in trainings:
        for layer in training.layers.layers[:2]:
            layer.requires_grad_(False)
        training.task.llm.get_input_embeddings().weight.requires_grad_(False)
    for _ in range(STEPS + 3):
        assert len({training.step(16) for training in trainings}) == 1
    # two layers of one kind, which train nothing, one of the other, and one of the first again
    assert trainings[1].graphs._recorder.recorded == 5


def test_a_nan_is_found_in_its_module():
    graphed = Training(Again())
    for _ in range(STEPS + 2):
        graphed.step(16)
    assert len(graphed.graphs)
    weight = graphed.layers.layers[1].mlp.up_proj.base_layer.weight
    weight.data[0, 0] = float('nan')
    with pytest.raises(NonFiniteStep) as found:
        graphed.step(16)
    assert 'layers.1.mlp.up_proj' in found.value.where


def test_hooks_of_layers_are_called():
    graphed = Training(Again())
    for _ in range(STEPS + 2):
        graphed.step(16)
    seen = []
    graphed.layers.layers[1].register_forward_hook(lambda *_: seen.append(1))
    graphed.step(16)
    assert seen == [1]


def test_calls_that_are_no_chain_are_let_be():
    layers = llama().model.layers

    def pieces(first, second, made):
        chain = Chain(list(layers[:2]))
        chain.add(layers[0], ((first,), {}), made)
        chain.add(layers[1], ((second,), dict(mask=None)), made)
        return chain.pieces()

    x, y = torch.ones(2, requires_grad=True), torch.ones(2)
    for layer in layers:
        layer.way = None
    assert len(pieces(x, y, y)) == 1
    assert pieces(x, y + 1, y) is None  # something was done between the layers
    assert pieces(x, (y,), (y,)) is None


def test_arguments_that_are_no_plain_values_are_let_be():
    assert form((torch.ones(2), dict(a=1, b=[None, 'x']))) == form((torch.zeros(2), dict(b=[None, 'x'], a=1)))
    assert form((1,)) != form((True,)) and form(torch.ones(2)) != form(torch.ones(3))
    with pytest.raises(Strange, match='object'):
        form((torch.ones(2), dict(cache=object())))
